"""Factorisation machine (Rendle 2010)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from embtables.models.spec import ModelInputs, ModelOptions, ModelSpec

if TYPE_CHECKING:
    from torch import nn


class FmConfig(ModelOptions):
    """Factorisation machine (Rendle 2010)."""

    kind: Literal["fm"] = "fm"


def _build(config: FmConfig, inputs: ModelInputs) -> nn.Module:
    from embtables.models.nets.fm import FactorizationMachine

    return FactorizationMachine(inputs.need_pooled_first_order(), inputs.num_dense, inputs.num_labels)


FM = ModelSpec(FmConfig, frozenset({"pooled", "first_order"}), _build)

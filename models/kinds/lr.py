"""Logistic regression over first-order weights and dense columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from embtables.models.spec import ModelInputs, ModelOptions, ModelSpec

if TYPE_CHECKING:
    from torch import nn


class LrConfig(ModelOptions):
    """Logistic regression over first-order weights and dense columns."""

    kind: Literal["lr"] = "lr"


def _build(config: LrConfig, inputs: ModelInputs) -> nn.Module:
    from embtables.models.nets.lr import LogisticRegression

    return LogisticRegression(inputs.need_first_order(), inputs.num_dense, inputs.num_labels)


LR = ModelSpec(LrConfig, frozenset({"first_order"}), _build)

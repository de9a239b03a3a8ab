"""DeepFM (Guo et al. 2017)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from embtables.models.hidden_layers import HiddenLayers
from embtables.models.spec import ModelInputs, ModelSpec

if TYPE_CHECKING:
    from torch import nn


class DeepFmConfig(HiddenLayers):
    """DeepFM (Guo et al. 2017): FM and a deep net over the same embeddings."""

    kind: Literal["deepfm"] = "deepfm"


def _build(config: DeepFmConfig, inputs: ModelInputs) -> nn.Module:
    from embtables.models.nets.deepfm import DeepFm

    return DeepFm(
        inputs.need_pooled_first_order(),
        inputs.num_dense,
        inputs.num_labels,
        hidden=config,
        world=inputs.world,
    )


DEEPFM = ModelSpec(DeepFmConfig, frozenset({"pooled", "first_order"}), _build)

"""DeepFM (Guo et al. 2017)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from embtables.models.spec import ModelInputs, ModelOptions, ModelSpec, Rate, Sizes

if TYPE_CHECKING:
    from torch import nn


class DeepFmConfig(ModelOptions):
    """DeepFM (Guo et al. 2017): FM and a deep net over the same embeddings."""

    kind: Literal["deepfm"] = "deepfm"
    hidden_sizes: Sizes = Field((256, 256, 256), description="widths of the hidden layers")
    dropout: Rate = Field(0.0, description="share of hidden values that training sets to zero")


def _build(config: DeepFmConfig, inputs: ModelInputs) -> nn.Module:
    from embtables.models.nets.deepfm import DeepFm

    return DeepFm(
        inputs.need_pooled_first_order(),
        inputs.num_dense,
        inputs.num_labels,
        hidden_sizes=config.hidden_sizes,
        dropout=config.dropout,
    )


DEEPFM = ModelSpec(DeepFmConfig, frozenset({"pooled", "first_order"}), _build)

"""DCN-V2 (Wang et al. 2021)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, PositiveInt

from embtables.models.hidden_layers import HiddenLayers
from embtables.models.spec import ModelInputs, ModelSpec

if TYPE_CHECKING:
    from torch import nn


class DcnV2Config(HiddenLayers):
    """DCN-V2 (Wang et al. 2021): cross layers and a deep net, side by side or one after the other."""

    kind: Literal["dcnv2"] = "dcnv2"
    structure: Literal["parallel", "stacked"] = Field(
        "parallel", description="cross layers and deep net side by side, or one after the other"
    )
    num_cross_layers: PositiveInt = Field(3, description="cross layers")


def _build(config: DcnV2Config, inputs: ModelInputs) -> nn.Module:
    from embtables.models.nets.dcnv2 import DcnV2

    return DcnV2(
        inputs.need_pooled(),
        inputs.num_dense,
        inputs.num_labels,
        parallel=config.structure == "parallel",
        num_cross_layers=config.num_cross_layers,
        hidden=config,
        world=inputs.world,
    )


DCNV2 = ModelSpec(DcnV2Config, frozenset({"pooled"}), _build)

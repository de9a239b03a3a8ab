"""The `model` section: one frozen record a model, a tagged union on `kind`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from embtables.schema.base import Model

Sizes = tuple[PositiveInt, ...]
Rate = Annotated[float, Field(ge=0.0, lt=1.0)]


class LrConfig(Model):
    """Logistic regression over first-order weights and dense columns."""

    kind: Literal["lr"] = "lr"


class FmConfig(Model):
    """Factorisation machine (Rendle 2010)."""

    kind: Literal["fm"] = "fm"


class DeepFmConfig(Model):
    """DeepFM (Guo et al. 2017): FM and a deep net over the same embeddings."""

    kind: Literal["deepfm"] = "deepfm"
    hidden_sizes: Sizes = (256, 256, 256)
    dropout: Rate = 0.0


class DcnV2Config(Model):
    """DCN-V2 (Wang et al. 2021): cross layers and a deep net, side by side or one after the other."""

    kind: Literal["dcnv2"] = "dcnv2"
    structure: Literal["parallel", "stacked"] = "parallel"
    num_cross_layers: PositiveInt = 3
    hidden_sizes: Sizes = (256, 256, 256)
    dropout: Rate = 0.0


ModelConfig = Annotated[LrConfig | FmConfig | DeepFmConfig | DcnV2Config, Field(discriminator="kind")]

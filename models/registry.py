"""The one list of the package's models. A model is its file in `kinds/`, its network in `nets/`, and its line here."""

from __future__ import annotations

from embtables.models.kinds.dcnv2 import DCNV2
from embtables.models.kinds.deepfm import DEEPFM
from embtables.models.kinds.fm import FM
from embtables.models.kinds.lr import LR
from embtables.models.spec import (
    MODELS,
    ModelConfig,
    ModelInputs,
    ModelOptions,
    ModelSpec,
    forget_model,
    register_model,
    spec_of,
)

__all__ = [
    "MODELS",
    "ModelConfig",
    "ModelInputs",
    "ModelOptions",
    "ModelSpec",
    "forget_model",
    "register_model",
    "spec_of",
]

register_model(LR)
register_model(FM)
register_model(DEEPFM)
register_model(DCNV2)

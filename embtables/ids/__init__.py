"""Ids: the string hash, crosses, and one encoder per file. `make_encoder` makes the encoder of a feature."""

from __future__ import annotations

from embtables.ids.artifacts import Artifacts
from embtables.ids.cross import cross_ids
from embtables.ids.encoder import (
    Encoder,
    EncoderSpec,
    encoder_of,
    make_encoder,
    register_encoder,
    unregister_encoder,
    width_of,
)
from embtables.ids.hash import SPEC as _HASH
from embtables.ids.identity import SPEC as _IDENTITY
from embtables.ids.multi_hash import SPEC as _MULTI_HASH
from embtables.schema.encoders import Combine

__all__ = [
    "Artifacts",
    "Combine",
    "Encoder",
    "EncoderSpec",
    "cross_ids",
    "encoder_of",
    "make_encoder",
    "register_encoder",
    "unregister_encoder",
    "width_of",
]

for _spec in (_IDENTITY, _HASH, _MULTI_HASH):
    register_encoder(_spec)

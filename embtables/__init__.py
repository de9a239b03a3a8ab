"""embtables: embedding tables for recommender systems, from the parquet log to the live server.

Public names load on first use, so that reading a schema does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from embtables.batch import Batch as Batch
    from embtables.collections import EmbeddingBagCollection as EmbeddingBagCollection
    from embtables.collections import EmbeddingCollection as EmbeddingCollection
    from embtables.errors import EmbtablesError as EmbtablesError
    from embtables.features import FeatureTransform as FeatureTransform
    from embtables.ids import Artifacts as Artifacts
    from embtables.ids import Encoder as Encoder
    from embtables.ids import EncoderSpec as EncoderSpec
    from embtables.ids import register_encoder as register_encoder
    from embtables.schema import CollisionlessTable as CollisionlessTable
    from embtables.schema import EncoderConfig as EncoderConfig
    from embtables.schema import Feature as Feature
    from embtables.schema import FeatureSchema as FeatureSchema
    from embtables.schema import FixedTable as FixedTable
    from embtables.tables import Tables as Tables

__version__ = "0.1.0"

_HOMES = {
    "Artifacts": "embtables.ids",
    "Encoder": "embtables.ids",
    "EncoderConfig": "embtables.schema",
    "EncoderSpec": "embtables.ids",
    "register_encoder": "embtables.ids",
    "Batch": "embtables.batch",
    "EmbeddingBagCollection": "embtables.collections",
    "EmbeddingCollection": "embtables.collections",
    "EmbtablesError": "embtables.errors",
    "CollisionlessTable": "embtables.schema",
    "Feature": "embtables.schema",
    "FeatureSchema": "embtables.schema",
    "FixedTable": "embtables.schema",
    "FeatureTransform": "embtables.features",
    "Tables": "embtables.tables",
}

__all__ = [
    "Artifacts",
    "Batch",
    "CollisionlessTable",
    "EmbeddingBagCollection",
    "EmbeddingCollection",
    "EmbtablesError",
    "Encoder",
    "EncoderConfig",
    "EncoderSpec",
    "Feature",
    "FeatureSchema",
    "FeatureTransform",
    "FixedTable",
    "Tables",
    "__version__",
    "register_encoder",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'embtables' has no attribute {name!r}")

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
    from embtables.models.metrics import MetricSpec as MetricSpec
    from embtables.models.metrics import register_metric as register_metric
    from embtables.models.registry import ModelInputs as ModelInputs
    from embtables.models.registry import ModelOptions as ModelOptions
    from embtables.models.registry import ModelSpec as ModelSpec
    from embtables.models.registry import register_model as register_model
    from embtables.models.scorer import Scorer as Scorer
    from embtables.schema import CollisionlessTable as CollisionlessTable
    from embtables.schema import Feature as Feature
    from embtables.schema import FixedTable as FixedTable
    from embtables.schema import Schema as Schema
    from embtables.tables import Tables as Tables

__version__ = "0.1.0"

_HOMES = {
    "Batch": "embtables.batch",
    "EmbeddingBagCollection": "embtables.collections",
    "EmbeddingCollection": "embtables.collections",
    "EmbtablesError": "embtables.errors",
    "MetricSpec": "embtables.models.metrics",
    "register_metric": "embtables.models.metrics",
    "Scorer": "embtables.models.scorer",
    "ModelInputs": "embtables.models.registry",
    "ModelOptions": "embtables.models.registry",
    "ModelSpec": "embtables.models.registry",
    "register_model": "embtables.models.registry",
    "CollisionlessTable": "embtables.schema",
    "Feature": "embtables.schema",
    "FixedTable": "embtables.schema",
    "FeatureTransform": "embtables.features",
    "Schema": "embtables.schema",
    "Tables": "embtables.tables",
}

__all__ = [
    "Batch",
    "CollisionlessTable",
    "EmbeddingBagCollection",
    "EmbeddingCollection",
    "EmbtablesError",
    "Feature",
    "FeatureTransform",
    "FixedTable",
    "MetricSpec",
    "ModelInputs",
    "ModelOptions",
    "ModelSpec",
    "Schema",
    "Scorer",
    "Tables",
    "__version__",
    "register_metric",
    "register_model",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'embtables' has no attribute {name!r}")

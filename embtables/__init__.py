"""embtables: embedding tables for recommender systems, from the parquet log to the live server.

Every public name is here. A name is imported at its first use, so that `import embtables` imports neither torch nor
numpy nor pyarrow. To add a name, add it to the imports for type checkers, to `_HOMES` and to `__all__`. Two public
modules have names of their own: `embtables.state` and `embtables.warm_start`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from embtables import state as state
    from embtables import warm_start as warm_start
    from embtables.errors import BadFileError as BadFileError
    from embtables.errors import ConfigError as ConfigError
    from embtables.errors import DataError as DataError
    from embtables.errors import DeadlineError as DeadlineError
    from embtables.errors import EmbtablesError as EmbtablesError
    from embtables.errors import RefusedError as RefusedError
    from embtables.errors import ServingError as ServingError
    from embtables.errors import StateError as StateError
    from embtables.errors import TrainingError as TrainingError
    from embtables.errors import UnreachableError as UnreachableError
    from embtables.errors import WorldError as WorldError
    from embtables.ids import Artifacts as Artifacts
    from embtables.ids import Encoder as Encoder
    from embtables.ids import EncoderSpec as EncoderSpec
    from embtables.ids import register_encoder as register_encoder
    from embtables.ids.strings import hash_strings as hash_strings
    from embtables.inputs.batch import Batch as Batch
    from embtables.inputs.features import BadRowsError as BadRowsError
    from embtables.inputs.features import FeatureTransform as FeatureTransform
    from embtables.inputs.transforms import FittedTransforms as FittedTransforms
    from embtables.lookup.collections import EmbeddingBagCollection as EmbeddingBagCollection
    from embtables.lookup.collections import EmbeddingCollection as EmbeddingCollection
    from embtables.models.metrics import Metric as Metric
    from embtables.models.metrics import MetricSpec as MetricSpec
    from embtables.models.metrics import register_metric as register_metric
    from embtables.models.registry import ModelInputs as ModelInputs
    from embtables.models.registry import ModelOptions as ModelOptions
    from embtables.models.registry import ModelSpec as ModelSpec
    from embtables.models.registry import register_model as register_model
    from embtables.models.scorer import Scorer as Scorer
    from embtables.pipelines.call.runs import evaluate as evaluate
    from embtables.pipelines.call.runs import load as load
    from embtables.pipelines.call.runs import predict as predict
    from embtables.pipelines.call.runs import resume as resume
    from embtables.pipelines.call.runs import train as train
    from embtables.pipelines.config import RunConfig as RunConfig
    from embtables.pipelines.config import load_config as load_config
    from embtables.pipelines.trained.run import Run as Run
    from embtables.rows.optimizers import OptimizerSpec as OptimizerSpec
    from embtables.rows.optimizers import StateColumn as StateColumn
    from embtables.rows.optimizers import register_optimizer as register_optimizer
    from embtables.schema import Adagrad as Adagrad
    from embtables.schema import Adam as Adam
    from embtables.schema import CollisionlessTable as CollisionlessTable
    from embtables.schema import Constant as Constant
    from embtables.schema import DenseColumn as DenseColumn
    from embtables.schema import DenseDecay as DenseDecay
    from embtables.schema import EncoderConfig as EncoderConfig
    from embtables.schema import EventTime as EventTime
    from embtables.schema import Feature as Feature
    from embtables.schema import FixedTable as FixedTable
    from embtables.schema import Hash as Hash
    from embtables.schema import Identity as Identity
    from embtables.schema import Label as Label
    from embtables.schema import LogConfig as LogConfig
    from embtables.schema import MinCount as MinCount
    from embtables.schema import MultiHash as MultiHash
    from embtables.schema import Normal as Normal
    from embtables.schema import OptimizerConfig as OptimizerConfig
    from embtables.schema import Probability as Probability
    from embtables.schema import RowwiseAdagrad as RowwiseAdagrad
    from embtables.schema import Schema as Schema
    from embtables.schema import Sgd as Sgd
    from embtables.schema import Uniform as Uniform
    from embtables.schema import Zeros as Zeros
    from embtables.serving.client import AsyncClient as AsyncClient
    from embtables.serving.client import Client as Client
    from embtables.serving.client import Scores as Scores
    from embtables.state.folder.version_folder import LeaseHolder as LeaseHolder
    from embtables.state.folder.version_folder import StateFolder as StateFolder
    from embtables.state.format.manifest import Manifest as Manifest
    from embtables.state.read.follower import Followed as Followed
    from embtables.state.read.follower import Follower as Follower
    from embtables.state.read.rows import read_rows as read_rows
    from embtables.state.read.version_reader import read_version as read_version
    from embtables.state.write.version_writer import VersionWriter as VersionWriter
    from embtables.tables.cuts import CutConsumer as CutConsumer
    from embtables.tables.cuts import CutLedger as CutLedger
    from embtables.tables.table_set import TableChanges as TableChanges
    from embtables.tables.table_set import Tables as Tables
    from embtables.tables.table_stats import TableStats as TableStats

__version__ = "0.1.0"

_HOMES = {
    "Batch": "embtables.inputs.batch",
    "EmbeddingBagCollection": "embtables.lookup.collections",
    "EmbeddingCollection": "embtables.lookup.collections",
    "CutConsumer": "embtables.tables.cuts",
    "CutLedger": "embtables.tables.cuts",
    "BadFileError": "embtables.errors",
    "ConfigError": "embtables.errors",
    "DataError": "embtables.errors",
    "EmbtablesError": "embtables.errors",
    "StateError": "embtables.errors",
    "TrainingError": "embtables.errors",
    "WorldError": "embtables.errors",
    "DeadlineError": "embtables.errors",
    "RefusedError": "embtables.errors",
    "ServingError": "embtables.errors",
    "UnreachableError": "embtables.errors",
    "BadRowsError": "embtables.inputs.features",
    "FeatureTransform": "embtables.inputs.features",
    "Artifacts": "embtables.ids",
    "Encoder": "embtables.ids",
    "EncoderSpec": "embtables.ids",
    "register_encoder": "embtables.ids",
    "hash_strings": "embtables.ids.strings",
    "Metric": "embtables.models.metrics",
    "MetricSpec": "embtables.models.metrics",
    "register_metric": "embtables.models.metrics",
    "ModelInputs": "embtables.models.registry",
    "ModelOptions": "embtables.models.registry",
    "ModelSpec": "embtables.models.registry",
    "register_model": "embtables.models.registry",
    "Scorer": "embtables.models.scorer",
    "LogConfig": "embtables.schema",
    "RunConfig": "embtables.pipelines.config",
    "load_config": "embtables.pipelines.config",
    "Run": "embtables.pipelines.trained.run",
    "evaluate": "embtables.pipelines.call.runs",
    "load": "embtables.pipelines.call.runs",
    "predict": "embtables.pipelines.call.runs",
    "resume": "embtables.pipelines.call.runs",
    "train": "embtables.pipelines.call.runs",
    "OptimizerSpec": "embtables.rows.optimizers",
    "StateColumn": "embtables.rows.optimizers",
    "register_optimizer": "embtables.rows.optimizers",
    "Adagrad": "embtables.schema",
    "Adam": "embtables.schema",
    "CollisionlessTable": "embtables.schema",
    "Constant": "embtables.schema",
    "DenseColumn": "embtables.schema",
    "EncoderConfig": "embtables.schema",
    "EventTime": "embtables.schema",
    "Feature": "embtables.schema",
    "Schema": "embtables.schema",
    "FixedTable": "embtables.schema",
    "Hash": "embtables.schema",
    "Identity": "embtables.schema",
    "Label": "embtables.schema",
    "MinCount": "embtables.schema",
    "MultiHash": "embtables.schema",
    "DenseDecay": "embtables.schema",
    "Normal": "embtables.schema",
    "OptimizerConfig": "embtables.schema",
    "Probability": "embtables.schema",
    "RowwiseAdagrad": "embtables.schema",
    "Sgd": "embtables.schema",
    "Uniform": "embtables.schema",
    "Zeros": "embtables.schema",
    "AsyncClient": "embtables.serving.client",
    "Client": "embtables.serving.client",
    "Scores": "embtables.serving.client",
    "StateFolder": "embtables.state.folder.version_folder",
    "LeaseHolder": "embtables.state.folder.version_folder",
    "Manifest": "embtables.state.format.manifest",
    "Followed": "embtables.state.read.follower",
    "Follower": "embtables.state.read.follower",
    "read_rows": "embtables.state.read.rows",
    "read_version": "embtables.state.read.version_reader",
    "VersionWriter": "embtables.state.write.version_writer",
    "TableStats": "embtables.tables.table_stats",
    "TableChanges": "embtables.tables.table_set",
    "Tables": "embtables.tables.table_set",
    "FittedTransforms": "embtables.inputs.transforms",
}

__all__ = [
    "Adagrad",
    "Adam",
    "Artifacts",
    "AsyncClient",
    "BadFileError",
    "BadRowsError",
    "Batch",
    "Client",
    "CollisionlessTable",
    "ConfigError",
    "Constant",
    "CutConsumer",
    "CutLedger",
    "DataError",
    "DeadlineError",
    "DenseColumn",
    "DenseDecay",
    "EmbeddingBagCollection",
    "EmbeddingCollection",
    "EmbtablesError",
    "Encoder",
    "EncoderConfig",
    "EncoderSpec",
    "EventTime",
    "Feature",
    "FeatureTransform",
    "FittedTransforms",
    "FixedTable",
    "Followed",
    "Follower",
    "Hash",
    "Identity",
    "Label",
    "LeaseHolder",
    "LogConfig",
    "Manifest",
    "Metric",
    "MetricSpec",
    "MinCount",
    "ModelInputs",
    "ModelOptions",
    "ModelSpec",
    "MultiHash",
    "Normal",
    "OptimizerConfig",
    "OptimizerSpec",
    "Probability",
    "RefusedError",
    "RowwiseAdagrad",
    "Run",
    "RunConfig",
    "Schema",
    "Scorer",
    "Scores",
    "ServingError",
    "Sgd",
    "StateColumn",
    "StateError",
    "StateFolder",
    "TableChanges",
    "TableStats",
    "Tables",
    "TrainingError",
    "Uniform",
    "UnreachableError",
    "VersionWriter",
    "WorldError",
    "Zeros",
    "__version__",
    "evaluate",
    "hash_strings",
    "load",
    "load_config",
    "predict",
    "read_rows",
    "read_version",
    "register_encoder",
    "register_metric",
    "register_model",
    "register_optimizer",
    "resume",
    "state",
    "train",
    "warm_start",
]


_MODULES = ("state", "warm_start")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"embtables.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'embtables' has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

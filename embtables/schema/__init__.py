"""The schema: frozen, validated models of tables, features, labels and data; YAML in and out."""

from embtables.schema.base import Model, Name, config_error, error_lines
from embtables.schema.condition import Condition
from embtables.schema.data import ColumnSplit, HashSplit, Join, LogConfig, Shuffle, Split, TimeSplit
from embtables.schema.encoders import ENCODERS, EncoderConfig, Hash, Identity, MultiHash
from embtables.schema.features import DenseColumn, EventTime, Feature, Label, Side
from embtables.schema.prepare import SampledNegatives
from embtables.schema.schema import Schema
from embtables.schema.tables import (
    Adagrad,
    Adam,
    Admission,
    CollisionlessTable,
    Constant,
    FixedTable,
    Initializer,
    MinCount,
    Normal,
    Optimizer,
    OptimizerConfig,
    Probability,
    RowwiseAdagrad,
    Sgd,
    Table,
    Uniform,
    Zeros,
)
from embtables.schema.text import json_schema, parse_value, parse_yaml, read_yaml, to_yaml, validate

__all__ = [
    "ENCODERS",
    "Adagrad",
    "Adam",
    "Admission",
    "CollisionlessTable",
    "ColumnSplit",
    "Condition",
    "Constant",
    "DenseColumn",
    "EncoderConfig",
    "EventTime",
    "Feature",
    "FixedTable",
    "Hash",
    "HashSplit",
    "Identity",
    "Initializer",
    "Join",
    "Label",
    "LogConfig",
    "MinCount",
    "Model",
    "MultiHash",
    "Name",
    "Normal",
    "Optimizer",
    "OptimizerConfig",
    "Probability",
    "RowwiseAdagrad",
    "SampledNegatives",
    "Schema",
    "Sgd",
    "Shuffle",
    "Side",
    "Split",
    "Table",
    "TimeSplit",
    "Uniform",
    "Zeros",
    "config_error",
    "error_lines",
    "json_schema",
    "parse_value",
    "parse_yaml",
    "read_yaml",
    "to_yaml",
    "validate",
]

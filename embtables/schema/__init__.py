"""The schema: frozen, validated models of tables, features, labels and data; YAML in and out."""

from embtables.schema.base import Model, Name, config_error
from embtables.schema.condition import Condition
from embtables.schema.data import ColumnSplit, Data, HashSplit, Join, Shuffle, Split, TimeSplit
from embtables.schema.features import (
    DenseColumn,
    Encoder,
    EventTime,
    Feature,
    Hash,
    Identity,
    Label,
    MultiHash,
)
from embtables.schema.prepare import SampledNegatives
from embtables.schema.schema import Schema
from embtables.schema.tables import (
    Adagrad,
    Adam,
    Constant,
    Initializer,
    Normal,
    Optimizer,
    RowwiseAdagrad,
    Sgd,
    Table,
    Uniform,
    Zeros,
)
from embtables.schema.text import json_schema, parse_value, parse_yaml, read_yaml, to_yaml, validate

__all__ = [
    "Adagrad",
    "Adam",
    "ColumnSplit",
    "Condition",
    "Constant",
    "Data",
    "DenseColumn",
    "Encoder",
    "EventTime",
    "Feature",
    "Hash",
    "HashSplit",
    "Identity",
    "Initializer",
    "Join",
    "Label",
    "Model",
    "MultiHash",
    "Name",
    "Normal",
    "Optimizer",
    "RowwiseAdagrad",
    "SampledNegatives",
    "Schema",
    "Sgd",
    "Shuffle",
    "Split",
    "Table",
    "TimeSplit",
    "Uniform",
    "Zeros",
    "config_error",
    "json_schema",
    "parse_value",
    "parse_yaml",
    "read_yaml",
    "to_yaml",
    "validate",
]

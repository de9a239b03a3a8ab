"""Columns that folders give: `country=UK/day=2024-01-01/part-0.parquet` has the columns `country` and `day`.

Their values are text: `01` and `1` are two shops, whatever other folders hold. A type for them is declared once, in
`data.partitions`, or follows from what the schema uses the column for: a label, a dense column or a weight is a
number, an event time is a time. Hive's name of a null, `__HIVE_DEFAULT_PARTITION__`, is a null. Names and values are
percent-encoded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from embtables.errors import ConfigError, DataError
from embtables.inputs.literals import (
    UnreadableLiteralError,
    read_boolean,
    read_float,
    read_integer,
    read_nanoseconds,
)
from embtables.schema import LogConfig, PartitionType, Schema

_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


def partition_values(relative: str) -> dict[str, str | None]:
    """The columns that the folders of a path below the log's root give, as text."""
    values: dict[str, str | None] = {}
    for part in relative.split("/")[:-1]:
        name, sign, value = part.partition("=")
        if sign and name:
            values[unquote(name)] = None if value == _HIVE_NULL else unquote(value)
    return values


def partition_types(schema: Schema, data: LogConfig) -> dict[str, PartitionType]:
    """The types that are declared, or that follow from the use of a column. Others are text."""
    found: dict[str, PartitionType] = {}
    ids = id_columns(schema)
    for name in number_columns(schema):
        found[name] = "float64"
    event_time = schema.event_time
    if event_time is not None:
        found[event_time.column] = "timestamp" if event_time.unit is None else "int64"
    # A column that is used as ids as well is one of text and of numbers: only the user can say which.
    return {name: kind for name, kind in found.items() if name not in ids} | dict(data.partitions)


def number_columns(schema: Schema) -> set[str]:
    """The columns that the schema reads as numbers."""
    names = {d.column for d in schema.dense} | {label.column for label in schema.labels}
    names |= {f.weights_column for f in schema.features if f.weights_column is not None}
    names |= {f.column for f in schema.features if f.num_buckets is not None and f.column is not None}
    return names | ({schema.sample_weight} if schema.sample_weight is not None else set())


def id_columns(schema: Schema) -> set[str]:
    """The columns that the schema reads as ids."""
    of_features = (f.cross or (f.column or f.name,) for f in schema.features if f.num_buckets is None)
    return {name for columns in of_features for name in columns}


_ARROW: dict[PartitionType, tuple[pa.DataType, Callable[[str], Any]]] = {
    "string": (pa.dictionary(pa.int32(), pa.large_string()), str),
    "int64": (pa.int64(), read_integer),
    "float64": (pa.float64(), read_float),
    "bool": (pa.bool_(), read_boolean),
    "date": (pa.date32(), lambda text: _exactly(read_nanoseconds(text), 86_400_000_000_000)),
    "timestamp": (pa.timestamp("us"), lambda text: read_nanoseconds(text) // 1_000),
}


def _exactly(number: int, unit: int) -> int:
    if number % unit:
        raise UnreadableLiteralError("a date is needed, such as 2024-01-31")
    return number // unit


def partition_type(types: Mapping[str, PartitionType], name: str) -> pa.DataType:
    """The Arrow type of a column that folders give."""
    return _ARROW[types.get(name, "string")][0]


def partition_column(types: Mapping[str, PartitionType], name: str, text: str | None, rows: int, file: str) -> pa.Array:
    """A folder's value as a column of so many rows. Raises DataError if it is none of the type."""
    declared = types.get(name, "string")
    kind, read = _ARROW[declared]
    if text is None:
        return pa.nulls(rows, kind)
    if declared == "string":
        indices = pa.repeat(pa.scalar(0, pa.int32()), rows)
        return pa.DictionaryArray.from_arrays(indices, pa.array([text], pa.large_string()))
    try:
        return pa.repeat(pa.scalar(read(text), kind), rows)
    except (UnreadableLiteralError, OverflowError, pa.ArrowException) as error:
        raise DataError(
            f"the folder's value is '{text}', but the column is read as {declared} ({error}); rename the folder, or "
            f"set data.partitions: {{{name}: string}}",
            file=file,
            column=name,
        ) from error


def check_declared(data: LogConfig, names: set[str]) -> None:
    """Raises ConfigError if a type is declared for a column that no folder gives."""
    unknown = sorted(set(data.partitions) - names)
    if unknown:
        known = f"they give: {', '.join(sorted(names))}" if names else "there are no folders named column=value"
        raise ConfigError(f"data.partitions names '{unknown[0]}', which the log's folders do not give; {known}")

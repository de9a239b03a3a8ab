"""Features that read the same rows for equal ids, although nobody said that their columns mean the same by them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import pyarrow as pa
import pyarrow.compute as pc

from embtables.arrow.types import is_list, is_text
from embtables.ids import encoder_of
from embtables.inputs.values import one_array
from embtables.pipelines.sources.parquet import Log
from embtables.schema import Feature, Schema, Table

_ROWS = 10_000  # of the log that are looked at
_VALUES = 100_000  # of a column of lists
_PARTS_OF_TIME = {"hour": range(24), "weekday": range(7), "day": range(1, 32), "month": range(1, 13)}


def first_rows(schema: Schema, log: Log) -> pa.Table:
    """The first rows of the log, with the columns whose values may have to be compared; a row group at most is read."""
    columns = {column for _, *pair in _pairs(schema) for f in pair for column in (f.column,) if column and _is_read(f)}
    blocks = log.blocks(0, None)
    if not columns or not blocks:
        return pa.table({})
    return log.rows(blocks[0][:1], None, sorted(columns)).table.slice(0, _ROWS)


def shared_values(schema: Schema, rows: pa.Table) -> list[str]:
    """A sentence for each table whose features have values in common, under columns of other names.

    A table that says `share_ids` has none; nor has one whose features make other keys of equal ids.

    Args:
        rows: of the log, with what `first_rows` reads.
    """
    found: dict[str, list[tuple[Feature, Feature, object]]] = {}
    values: dict[str, dict[object, None]] = {}
    for table, one, other in _pairs(schema):
        for feature in (one, other):
            if feature.name not in values:
                values[feature.name] = _values(feature, rows)
        both = [value for value in values[one.name] if value in values[other.name]]
        if both:
            found.setdefault(table.name, []).append((one, other, both[0]))
    return [_sentence(table, pairs) for table, pairs in found.items()]


def _pairs(schema: Schema) -> Iterator[tuple[Table, Feature, Feature]]:
    """Features of one table that would have one key for equal ids, and were not said to."""
    for table in schema.tables:
        readers = [f for f in schema.features if f.table == table.name and f.cross is None]
        if table.share_ids is not None or len(readers) < 2:
            continue
        for one, other in combinations(readers, 2):
            if one.column != other.column and encoder_of(one, table).makes_keys_as(encoder_of(other, table)):
                yield table, one, other


def _is_read(feature: Feature) -> bool:
    """Whether the values must be looked for; those of other features are known."""
    return feature.num_buckets is None and feature.timestamp_part not in _PARTS_OF_TIME


def _values(feature: Feature, rows: pa.Table) -> dict[object, None]:
    """The ids of a feature as they are in the log, in the order in which they come: integers, or strings."""
    if feature.num_buckets is not None:
        return dict.fromkeys(range(feature.num_buckets))
    if feature.timestamp_part in _PARTS_OF_TIME:
        return dict.fromkeys(_PARTS_OF_TIME[feature.timestamp_part])
    if feature.timestamp_part is not None or feature.column not in rows.column_names:
        return {}
    column = one_array(rows[feature.column])
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if feature.split is not None and is_text(column.type):
        column = pc.split_pattern(column, feature.split)
    while is_list(column.type):
        column = one_array(column.flatten())
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if not pa.types.is_integer(column.type) and not is_text(column.type):
        return {}
    distinct = pc.unique(column[:_VALUES].drop_null())
    if is_text(column.type):
        # As bytes: text of a log need not be UTF-8.
        return dict.fromkeys(v.decode("utf-8", "replace") for v in distinct.cast(pa.large_binary()).to_pylist())
    return dict.fromkeys(distinct.to_pylist())


def _sentence(table: str, pairs: list[tuple[Feature, Feature, object]]) -> str:
    one, other, value = pairs[0]
    more = f" (and {len(pairs) - 1} more such pairs)" if len(pairs) > 1 else ""
    names = f"'{one.name}' and '{other.name}'{more}"
    return (
        f"table '{table}': features {names} read one row for equal ids, such as {value!r}; "
        "set share_ids of the table: true if that is meant, false to give each feature rows of its own"
    )

"""`data.split`: which rows train, validate and test."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embtables.errors import DataError
from embtables.ids.cross import cross_ids
from embtables.ids.mix import seeded_mix
from embtables.ids.strings import hash_strings
from embtables.inputs.columns import Int64s, as_microseconds, check_utf8, is_text, one_array
from embtables.schema import ColumnSplit, EventTime, HashSplit, Split, TimeSplit

LogPart = Literal["train", "validation", "test"]
Mask = npt.NDArray[np.bool_]


def split_columns(split: Split | None, event_time: EventTime | None) -> tuple[str, ...]:
    """The columns that the split reads."""
    if isinstance(split, HashSplit):
        return split.columns
    if isinstance(split, ColumnSplit):
        return (split.column,)
    return (event_time.column,) if split is not None and event_time is not None else ()


def part_mask(table: pa.Table, split: Split | None, event_time: EventTime | None, part: LogPart) -> Mask:
    """(n,) which rows belong to `part`; without a split, all rows train."""
    if split is None:
        return np.full(table.num_rows, part == "train")
    if isinstance(split, TimeSplit):
        assert event_time is not None
        return _by_time(split, as_microseconds(event_time, one_array(table.column(event_time.column))), part)
    if isinstance(split, ColumnSplit):
        column = table.column(split.column)
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        wanted = pa.array([str(v) for v in getattr(split, part)])
        found: Mask = pc.fill_null(pc.is_in(column.cast(pa.string()), value_set=wanted), False).to_numpy()
        return found.astype(np.bool_)
    return _by_hash(split, table, part)


def _by_time(split: TimeSplit, times: Int64s, part: LogPart) -> Mask:
    from_validation = times >= _us(split.validation_from) if split.validation_from else np.zeros(len(times), np.bool_)
    from_test = times >= _us(split.test_from) if split.test_from else np.zeros(len(times), np.bool_)
    if part == "test":
        return from_test
    return from_validation & ~from_test if part == "validation" else ~from_validation & ~from_test


def _us(moment: datetime) -> int:
    """Microseconds since 1970; a moment without a zone is UTC."""
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return round(aware.timestamp() * 1_000_000)


def _by_hash(split: HashSplit, table: pa.Table, part: LogPart) -> Mask:
    """u = mix(seed, cross of the columns) in [0, 2^64): test below `test`, validation below `test + validation`."""
    u = seeded_mix(cross_ids(*(_hashable(table, name) for name in split.columns)), split.seed)
    test_below = np.uint64(int(split.test * 2**64))
    validation_below = np.uint64(min(int((split.test + split.validation) * 2**64), 2**64 - 1))
    if part == "test":
        return u < test_below
    return (u >= test_below) & (u < validation_below) if part == "validation" else u >= validation_below


def _hashable(table: pa.Table, name: str) -> Int64s:
    """A column as int64 whatever its width or encoding; nulls as 0."""
    array = one_array(table.column(name))
    if is_text(array.type):
        check_utf8(name, array)
        return hash_strings(array)
    if pa.types.is_timestamp(array.type):
        return as_microseconds(EventTime(column=name), array)
    if not (pa.types.is_integer(array.type) or pa.types.is_boolean(array.type)):
        raise DataError(f"holds {array.type}; split by integers, strings or timestamps", column=name)
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.int8())
    values = array.fill_null(0).to_numpy(zero_copy_only=False)
    hashed: Int64s = values.view(np.int64) if values.dtype == np.uint64 else values.astype(np.int64)
    return hashed

"""`data.split`: which rows train, validate and test."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pyarrow as pa

from embtables.arrow.types import is_list
from embtables.errors import ConfigError
from embtables.ids.cross import cross_ids
from embtables.ids.mix import seeded_mix
from embtables.inputs.columns import plain_ids
from embtables.inputs.times import as_microseconds, moment_us
from embtables.inputs.values import BadRowsError, Int64s, Mask, one_array
from embtables.inputs.where import matches
from embtables.schema import ColumnSplit, EventTime, HashSplit, Split, TimeSplit

LogPart = Literal["train", "validation", "test"]


def split_columns(split: Split | None, event_time: EventTime | None) -> tuple[str, ...]:
    """The columns that the split reads."""
    if isinstance(split, HashSplit):
        return split.columns
    if isinstance(split, ColumnSplit):
        return (split.column,)
    return (event_time.column,) if split is not None and event_time is not None else ()


@dataclass(frozen=True, slots=True)
class BadRows:
    """Rows of a table for which no part can be found, and why."""

    column: str
    reason: str
    rows: Int64s

    def __len__(self) -> int:
        return len(self.rows)

    def among(self, mask: Mask) -> BadRows:
        """Those of them that a mask has."""
        return replace(self, rows=self.rows[mask[self.rows]])

    def at(self, places: Int64s) -> BadRows:
        """The same rows, which are now at other places."""
        return replace(self, rows=places[self.rows])

    def error(self) -> BadRowsError:
        """What is raised for them."""
        return BadRowsError(self.reason, self.column, self.rows)


def part_mask(
    table: pa.Table, split: Split | None, event_time: EventTime | None, part: LogPart
) -> tuple[Mask, list[BadRows]]:
    """(n,) which rows belong to `part` (without a split, all rows train), and rows that belong nowhere.

    Raises:
        ConfigError: a column's type is not one that the split can go by. DataError: the same of columns of ids.
    """
    if split is None:
        return np.full(table.num_rows, part == "train"), []
    if isinstance(split, ColumnSplit):
        return _by_column(split, table, part), []
    if isinstance(split, TimeSplit):
        assert event_time is not None
        times, bad = _usable(table, event_time.column, lambda array: as_microseconds(event_time, array))
        return _without(_by_time(split, times, part), bad), bad
    ids, faults = [], []
    for name in split.columns:
        found, bad = _usable(table, name, functools.partial(_hashable, name))
        ids.append(found)
        faults += bad
    return _without(_by_hash(split, ids, part), faults), faults


def _without(mask: Mask, bad: list[BadRows]) -> Mask:
    for each in bad:
        mask[each.rows] = False
    return mask


def _usable(table: pa.Table, name: str, convert: Callable[[pa.Array], Int64s]) -> tuple[Int64s, list[BadRows]]:
    """A column converted; 0 where it cannot be, and the rows with the reason."""
    array = one_array(table.column(name))
    kept = np.arange(len(array))
    faults: list[BadRows] = []
    while True:
        try:
            found = convert(array)
        except BadRowsError as error:
            faults.append(BadRows(name, error.message, kept[error.rows]))
            kept = np.delete(kept, error.rows)
            array = array.take(pa.array(np.delete(np.arange(len(array)), error.rows)))
            continue
        if not faults:
            return found, faults
        whole = np.zeros(table.num_rows, np.int64)
        whole[kept] = found
        return whole, faults


def _by_column(split: ColumnSplit, table: pa.Table, part: LogPart) -> Mask:
    array = one_array(table.column(split.column))
    mask = np.zeros(len(array), np.bool_)
    for text in getattr(split, part):
        try:
            mask |= matches(array, "==", text, split.column)
        except ConfigError as error:
            # The words that stand for parts unless others are given: a column of numbers has none of them.
            if text != part or not _is_comparable(array.type):
                raise ConfigError(f"data.split: {error.message}", column=split.column) from None
    return mask


def _is_comparable(kind: pa.DataType) -> bool:
    return not (is_list(kind) or pa.types.is_struct(kind))


def _by_time(split: TimeSplit, times: Int64s, part: LogPart) -> Mask:
    from_validation = (
        times >= moment_us(split.validation_from) if split.validation_from else np.zeros(len(times), np.bool_)
    )
    from_test = times >= moment_us(split.test_from) if split.test_from else np.zeros(len(times), np.bool_)
    if part == "test":
        return from_test
    return from_validation & ~from_test if part == "validation" else ~from_validation & ~from_test


def _by_hash(split: HashSplit, ids: Sequence[Int64s], part: LogPart) -> Mask:
    """u = mix(seed, cross of the columns) in [0, 2^64): test below `test`, validation below `test + validation`."""
    u = seeded_mix(cross_ids(*ids), split.seed)
    test_below = np.uint64(int(split.test * 2**64))
    validation_below = np.uint64(min(int((split.test + split.validation) * 2**64), 2**64 - 1))
    if part == "test":
        return u < test_below
    return (u >= test_below) & (u < validation_below) if part == "validation" else u >= validation_below


def _hashable(name: str, array: pa.Array) -> Int64s:
    """A column as ids, whatever its width or encoding; nulls as 0."""
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    ids = plain_ids(name, array)
    return ids if valid.all() else np.where(valid, ids, np.int64(0))

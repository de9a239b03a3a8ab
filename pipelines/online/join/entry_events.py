"""What the joiner reads of an entry: kinds, times and keys, and which rows have a fault."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embtables.arrow.types import is_text, plain
from embtables.errors import DataError
from embtables.events.columns import EVENT_TIME, FORMAT, FORMAT_KEY, IMPRESSION, KIND, REQUEST_ID
from embtables.ids.mix import GOLDEN_GAMMA, mix
from embtables.ids.strings import hash_strings

Int64s = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
ItemKind = Literal["strings", "integers"]

_LAST_US = 2**60  # what the native joiner takes


class EntryFaultError(Exception):
    """No event of an entry can be read: the word that counts it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Part:
    """Events of one kind: n rows of the entry, with their keys and their times in microseconds."""

    rows: npt.NDArray[np.uint32]
    keys: npt.NDArray[np.uint64]
    times: Int64s

    def where(self, chosen: Mask) -> Part:
        """Some of them, by a mask (n,)."""
        return Part(self.rows[chosen], self.keys[chosen], self.times[chosen])


@dataclass(frozen=True, slots=True)
class EntryEvents:
    """An entry, read.

    Attributes:
        ignored: how many events are of kinds that the label does not depend on.
        faults: by reason the rows that cannot be used.
        median_us: of the events' times up to the latest one, the lower one of two; None if no event has such a time.
        item_kind: what items are; None if no event is of use.
    """

    impressions: Part
    actions: Part
    ignored: int
    faults: dict[str, npt.NDArray[np.uint32]]
    median_us: int | None
    item_kind: ItemKind | None


def read_entry(
    events: pa.RecordBatch, item: str, actions: Sequence[str], known: ItemKind | None, latest_us: int | None
) -> EntryEvents:
    """Reads an entry of n >= 1 events.

    Args:
        item: the column of the item.
        actions: kinds that are actions of the label.
        known: what the items of earlier entries were; keys of the two kinds never meet.
        latest_us: a later time says nothing of the time that it is; None: any may be.

    Raises:
        EntryFaultError: another format, or a column is missing or of a type that has no meaning here.
    """
    form = (events.schema.metadata or {}).get(FORMAT_KEY)
    if form is not None and form != str(FORMAT).encode():
        raise EntryFaultError("format_unknown")
    kinds, requests, items = (_column(events, name) for name in (KIND, REQUEST_ID, item))
    if not is_text(kinds.type) or not (is_text(requests.type) or pa.types.is_null(requests.type)):
        raise EntryFaultError("columns_of_another_type")
    has_time, times = _times(events)
    is_impression = _mask(pc.equal(kinds, IMPRESSION))
    is_action = _mask(pc.is_in(kinds, value_set=pa.array(actions, kinds.type)))
    used = is_impression | is_action
    faults: dict[str, npt.NDArray[np.uint32]] = {}
    good = _without(faults, "time_missing", ~has_time, np.ones(len(times), np.bool_))
    ignored = int((good & ~used).sum())
    good &= used
    good = _without(faults, "request_missing", ~_has_text(requests), good)
    good = _without(faults, "item_missing", _mask(items.is_null()), good)
    item_kind = None if not good.any() else _kind_of(items.type)
    if item_kind is not None and known not in (None, item_kind):
        raise EntryFaultError("items_of_another_type")
    keys = _keys(requests, items) if item_kind is not None else np.zeros(len(times), np.uint64)
    return EntryEvents(
        _part(good & is_impression, keys, times),
        _part(good & is_action, keys, times),
        ignored,
        faults,
        _median(times[has_time & (times <= (_LAST_US if latest_us is None else latest_us))]),
        item_kind,
    )


def _column(events: pa.RecordBatch, name: str) -> pa.Array:
    found = events.schema.get_all_field_indices(name)
    if len(found) != 1:
        raise EntryFaultError("columns_missing")
    try:
        array = plain(events.column(found[0]))
    except DataError:
        raise EntryFaultError("damaged") from None
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _times(events: pa.RecordBatch) -> tuple[Mask, Int64s]:
    """Which events have a time, and the times in microseconds, 0 for others."""
    column = _column(events, EVENT_TIME)
    if not pa.types.is_timestamp(column.type) or column.type.unit != "us":
        raise EntryFaultError("columns_of_another_type")
    times = column.view(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    has_time = _mask(column.is_valid()) & (times >= -_LAST_US) & (times <= _LAST_US)
    return has_time, np.where(has_time, times, 0)


def _median(times: Int64s) -> int | None:
    middle = (len(times) - 1) // 2
    return int(np.partition(times, middle)[middle]) if len(times) else None


def _mask(array: pa.Array) -> Mask:
    filled = array.fill_null(False) if array.null_count else array
    found: Mask = filled.to_numpy(zero_copy_only=False)
    return found


def _has_text(texts: pa.Array) -> Mask:
    if pa.types.is_null(texts.type):
        return np.zeros(len(texts), np.bool_)
    return _mask(pc.greater(pc.binary_length(texts), 0))


def _without(faults: dict[str, npt.NDArray[np.uint32]], reason: str, wrong: Mask, good: Mask) -> Mask:
    """Notes which good rows are wrong, and returns the others."""
    if (wrong & good).any():
        faults[reason] = np.flatnonzero(wrong & good).astype(np.uint32)
    return good & ~wrong


def _kind_of(kind: pa.DataType) -> ItemKind:
    if is_text(kind):
        return "strings"
    if pa.types.is_integer(kind):
        return "integers"
    raise EntryFaultError("items_of_another_type")


def _keys(requests: pa.Array, items: pa.Array) -> npt.NDArray[np.uint64]:
    """64 bits of request and item: two pairs share a key with a chance of 2^-64."""
    if is_text(items.type):
        words = hash_strings(items)
    else:
        words = np.ascontiguousarray(items.fill_null(0).to_numpy(zero_copy_only=False)).astype(np.int64)
    return mix(hash_strings(requests).view(np.uint64) + mix(words.view(np.uint64), GOLDEN_GAMMA))


def _part(chosen: Mask, keys: npt.NDArray[np.uint64], times: Int64s) -> Part:
    return Part(np.flatnonzero(chosen).astype(np.uint32), keys[chosen], times[chosen])

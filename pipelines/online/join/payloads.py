"""The events of entries that are still needed: read from the log again, an entry at a time, the last ones kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embtables.events.protocol import EventLog

UInt32s = npt.NDArray[np.uint32]


class EntryCache:
    """Decoded entries of a log: those that were used last.

    Args:
        log: where others are read again.
        most_bytes: of entries that are kept; the one in use may be larger.
    """

    def __init__(self, log: EventLog, most_bytes: int) -> None:
        self._log = log
        self._most_bytes = most_bytes
        self._kept: OrderedDict[tuple[int, str], pa.RecordBatch] = OrderedDict()
        self._kept_bytes = 0

    def events(self, partition: int, position: str) -> pa.RecordBatch:
        """The events of an entry. Raises as `EventLog.fetch`."""
        found = self._kept.get((partition, position))
        if found is not None:
            self._kept.move_to_end((partition, position))
            return found
        fetched = self._log.fetch(partition, position)
        self.keep(partition, position, fetched)
        return fetched

    def keep(self, partition: int, position: str, events: pa.RecordBatch) -> None:
        """Takes an entry that was read."""
        self.forget(partition, position)
        self._kept[partition, position] = events
        self._kept_bytes += events.nbytes
        while self._kept_bytes > self._most_bytes and len(self._kept) > 1:
            self.forget(*next(iter(self._kept)))

    def forget(self, partition: int, position: str) -> None:
        """Lets go of an entry, if it is kept."""
        events = self._kept.pop((partition, position), None)
        if events is not None:
            self._kept_bytes -= events.nbytes


@dataclass(frozen=True, slots=True)
class OpenEntry:
    """An entry that has open events.

    Attributes:
        order: of reading; rises.
        clock_us: of its partition, after it.
    """

    order: int
    position: str
    clock_us: int


class Payloads:
    """Open entries of a partition by number, and their events."""

    def __init__(self, cache: EntryCache, partition: int) -> None:
        self._cache = cache
        self._partition = partition
        self._open: dict[int, OpenEntry] = {}
        self._next_order = 0

    def add(self, number: int, position: str, clock_us: int, events: pa.RecordBatch | None) -> None:
        """An entry that was read after all others; `events`, if they are there already."""
        self._open[number] = OpenEntry(self._next_order, position, clock_us)
        self._next_order += 1
        if events is not None:
            self._cache.keep(self._partition, position, events)

    def drop(self, numbers: Iterable[int]) -> None:
        """Entries that nothing needs any more."""
        for number in numbers:
            self._cache.forget(self._partition, self._open.pop(number).position)

    def entry(self, number: int) -> OpenEntry:
        """Where an open entry lies."""
        return self._open[number]

    def in_order(self) -> list[tuple[int, OpenEntry]]:
        """Open entries with their numbers, in the order of reading."""
        return sorted(self._open.items(), key=lambda item: item[1].order)

    def events(self, number: int) -> pa.RecordBatch:
        """The events of an open entry. Raises as `EventLog.fetch`."""
        return self._cache.events(self._partition, self._open[number].position)


def by_entry(entries: UInt32s) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """Each distinct entry number of (n,), rising, with the places where it stands, rising."""
    if len(entries) and (entries == entries[0]).all():
        yield int(entries[0]), np.arange(len(entries))
        return
    order = np.argsort(entries, kind="stable")
    ends = np.flatnonzero(np.diff(entries[order])) + 1
    for places in np.split(order, ends) if len(entries) else ():
        yield int(entries[places[0]]), places

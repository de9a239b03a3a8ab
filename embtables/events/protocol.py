"""`EventLog`: events appended in batches to numbered partitions, and read after a position.

    server, simulator --append--> partition 0 .. P-1, each in the order of its appends --read--> features, joiner

An entry is what one `append` was given: it is read whole or not at all. A position names an entry of one partition; it
is a short text whose meaning is the log's own. Readers store positions with their own state (a version, a
checkpoint): the log knows nothing of them.

What is appended is durable when `append` returns, as far as the log's options say. A writer that fails within
`append` may have appended: events carry an `event_id`, and who counts them counts each id once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

Positions = Mapping[int, str]
"""By partition the entry that was read last; a partition that is absent has not been begun."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What one `append` was given.

    Attributes:
        position: its own; `read(partition, position)` gives what follows it.
        events: (n,) rows, n >= 1; the columns of `embtables.events.columns` and what else the writer gave.
    """

    partition: int
    position: str
    events: pa.RecordBatch


class EventLog(Protocol):
    """Partitions of entries. One object may be used by several threads."""

    @property
    def num_partitions(self) -> int:
        """P, at least 1; fixed when the log is made."""

    def append(self, partition: int, events: pa.RecordBatch) -> str:
        """Appends one entry and returns its position; it is durable then.

        Raises:
            DataError: the batch has no rows, or is larger than the log takes.
            EventLogError: the log cannot be written; the entry may be there or not.
        """

    def read(self, partition: int, after: str | None, *, max_entries: int = 1000) -> list[Entry]:
        """The next entries, oldest first; none if there is nothing new.

        Args:
            after: an entry's position; None: from the oldest entry that is kept.
            max_entries: at least 1; there may be fewer although more are there, so that an answer has few bytes.

        Raises:
            EventsLostError: entries after the position are no longer kept; names what is lost.
            EventLogError: the log cannot be read, or the position is not one of this log.
        """

    def fetch(self, partition: int, position: str) -> pa.RecordBatch:
        """The events of one entry that was read before. Raises as `read` does."""

    def last(self, partition: int) -> str | None:
        """The position of the newest entry; None if there is none."""

    def wait(self, after: Positions, timeout_seconds: float, *, partitions: Collection[int] | None = None) -> bool:
        """Until a partition has an entry after its position, or the time is over. Returns whether one has.

        Args:
            partitions: those that are looked at, at least one; by default all.
        """

    def close(self) -> None:
        """Frees what it holds. Nothing is called after it."""

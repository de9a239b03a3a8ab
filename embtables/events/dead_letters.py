"""`DeadLetters`: events that were refused, kept in a folder log of their own until someone looks at them.

A dead letter is an event as it came, with the columns `dead_reason` and `dead_time` (of the clock, when it was set
aside). `replay` checks them again, appends those that are good now, and remembers how far it came.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from embtables.errors import DataError
from embtables.events.check import EventLimits, Reason, check_events
from embtables.events.folder import FolderLog
from embtables.events.folder.disk import create_whole, named_errors, opened, read_at, sync_folder
from embtables.events.options import FolderOptions
from embtables.events.partitions import by_partition
from embtables.events.protocol import EventLog

DEAD_REASON = "dead_reason"
DEAD_TIME = "dead_time"
_REPLAYED = "replayed"  # file with the position of the last dead letters that were replayed


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay did with the events.

    Attributes:
        appended: events that are good now.
        refused: those that are still bad, by reason; they are dead letters again.
    """

    appended: int
    refused: Counter[Reason]


class DeadLetters:
    """Refused events in a folder.

    Args:
        root: a folder of its own, which is made if need be.

    Attributes:
        counts: how many were added by this object, by reason.

    Raises:
        EventLogError: the folder cannot be made or read, or holds something else.
    """

    def __init__(self, root: Path) -> None:
        self.counts: Counter[str] = Counter()
        self._marker = root / "0000" / _REPLAYED
        self._log = FolderLog(root, FolderOptions(partitions=1))

    def add(self, events: pa.RecordBatch, reasons: Sequence[str]) -> None:
        """Sets events aside, durably.

        Args:
            events: n rows, of any columns.
            reasons: n texts.

        Raises:
            DataError: there are not as many reasons as events.
            EventLogError: they cannot be written.
        """
        if len(reasons) != events.num_rows:
            raise DataError(f"there are {len(reasons)} reasons for {events.num_rows} events")
        if not events.num_rows:
            return
        now = pa.repeat(pa.scalar(_clock(), pa.timestamp("us")), events.num_rows)
        plain = _without_marks(events)
        schema = plain.schema.append(pa.field(DEAD_REASON, pa.string())).append(pa.field(DEAD_TIME, pa.timestamp("us")))
        marked = pa.record_batch([*plain.columns, pa.array(reasons, pa.string()), now], schema)
        self._log.append(0, marked)
        self.counts.update(reasons)

    def pending(self) -> Iterator[pa.RecordBatch]:
        """What was not replayed yet, oldest first. Raises EventLogError where it cannot be read."""
        after = self._replayed()
        while entries := self._log.read(0, after, max_entries=100):
            for entry in entries:
                yield entry.events
            after = entries[-1].position

    def replay(self, log: EventLog, now: int | None = None, limits: EventLimits | None = None) -> Replayed:
        """Checks every pending event again and appends the good ones to a log, each to its partition.

        Where it is stopped half way, the next replay appends some again; readers count each `event_id` once.

        Args:
            now: what times are compared with, microseconds since 1970; None: the clock.
        """
        appended, refused, end, after = 0, Counter[Reason](), self._log.last(0), self._replayed()
        while after != end and (entries := self._log.read(0, after, max_entries=1)):
            events, after = entries[0].events, entries[0].position
            checked = check_events(_without_marks(events), _clock() if now is None else now, limits)
            if checked.good.num_rows:
                for partition, part in by_partition(checked.good, log.num_partitions).items():
                    log.append(partition, part)
            self.add(checked.bad, checked.reasons)
            self._remember(after)
            appended += checked.good.num_rows
            refused.update(checked.counts)
        return Replayed(appended, refused)

    def close(self) -> None:
        """Frees the files."""
        self._log.close()

    def _replayed(self) -> str | None:
        with named_errors(file=self._marker):
            try:
                with opened(self._marker, os.O_RDONLY) as handle:
                    return read_at(handle, 256, 0).decode("ascii", errors="replace")
            except FileNotFoundError:
                return None

    def _remember(self, position: str) -> None:
        with named_errors(file=self._marker):
            fresh = self._marker.with_suffix(".new")
            fresh.unlink(missing_ok=True)
            create_whole(fresh, position.encode())
            fresh.replace(self._marker)
            sync_folder(self._marker.parent)


def _without_marks(events: pa.RecordBatch) -> pa.RecordBatch:
    """By place, since an event may have been refused because it has two columns of one name."""
    return events.select([i for i, name in enumerate(events.schema.names) if name not in (DEAD_REASON, DEAD_TIME)])


def _clock() -> int:
    return int(time.time() * 1e6)

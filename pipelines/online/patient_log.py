"""`PatientLog`: an event log that is read on when its server is back, so that a live run does not end."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import TypeVar

import pyarrow as pa

from embtables.errors import EventLogAwayError
from embtables.events.protocol import Entry, EventLog, Positions
from embtables.pipelines.progress import say

Answer = TypeVar("Answer")
_PAUSE_SECONDS = 0.5


class PatientLog:
    """Another `EventLog`, each call of which is made again until the server answers.

    Args:
        is_asked_to_stop: then the error of the last call is raised.
    """

    def __init__(self, log: EventLog, is_asked_to_stop: Callable[[], bool]) -> None:
        self._log = log
        self._is_asked_to_stop = is_asked_to_stop
        self._seconds_away = 0.0

    def now(self) -> float:
        """Seconds of a clock that stands while the server is away: its partitions are not idle then."""
        return time.monotonic() - self._seconds_away

    @property
    def num_partitions(self) -> int:
        """See EventLog."""
        return self._log.num_partitions

    def append(self, partition: int, events: pa.RecordBatch) -> str:
        """See EventLog. It is made once: a second one may append again."""
        return self._log.append(partition, events)

    def read(self, partition: int, after: str | None, *, max_entries: int = 1000) -> list[Entry]:
        """See EventLog."""
        return self._answer(lambda: self._log.read(partition, after, max_entries=max_entries))

    def fetch(self, partition: int, position: str) -> pa.RecordBatch:
        """See EventLog."""
        return self._answer(lambda: self._log.fetch(partition, position))

    def last(self, partition: int) -> str | None:
        """See EventLog."""
        return self._answer(lambda: self._log.last(partition))

    def wait(self, after: Positions, timeout_seconds: float, *, partitions: Collection[int] | None = None) -> bool:
        """See EventLog."""
        return self._answer(lambda: self._log.wait(after, timeout_seconds, partitions=partitions))

    def close(self) -> None:
        """See EventLog."""
        self._log.close()

    def _answer(self, ask: Callable[[], Answer]) -> Answer:
        begun, is_away = time.monotonic(), False
        while True:
            try:
                found = ask()
                break
            except EventLogAwayError as error:
                if self._is_asked_to_stop():
                    raise
                if not is_away:
                    say(f"warning: {error}; training goes on when it is back")
                is_away = True
                time.sleep(_PAUSE_SECONDS)
        if is_away:
            self._seconds_away += time.monotonic() - begun
            say("the event log is back")
        return found

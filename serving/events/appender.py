"""`EventAppender`: events of many requests -> entries of an event log; each request waits until its own are durable.

    await append(batch) -> waiting batches -> one thread: by partition, alike ones together -> log.append
                                              -> read back and folded (LiveRunning) -> answers

While the thread appends, requests gather; it takes all of them next, so that one fsync answers many.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from embtables.errors import EmbtablesError, EventLogError
from embtables.events.partitions import by_partition
from embtables.events.protocol import EventLog
from embtables.serving.refusals import Refusal
from embtables.serving.running.live_running import LiveRunning


@dataclass(frozen=True, slots=True)
class _Waiting:
    """Events of one request, and who waits for them."""

    events: pa.RecordBatch
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[None]

    def end(self, error: BaseException | None) -> None:
        """Answers it, on its own loop, if that still runs."""
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._end, error)

    def _end(self, error: BaseException | None) -> None:
        if self.done.done():  # its client has left
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)


class EventAppender:
    """Appends to one log, on a thread of its own.

    Args:
        log: is closed by `close`.
        running: folds events before they are answered; None: nobody does.
        max_events: that wait; further ones get 429.
    """

    def __init__(self, log: EventLog, running: LiveRunning | None = None, *, max_events: int = 100_000) -> None:
        self._log, self._running = log, running
        self._max_events = max_events
        self._waiting: list[_Waiting] = []
        self._events = 0
        self._changed = threading.Condition()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="embtables-events", daemon=True)
        self._thread.start()

    async def append(self, events: pa.RecordBatch) -> None:
        """Returns when the events are durable, and folded where a running feature counts them.

        Args:
            events: checked ones (`check_events`).

        Raises:
            Refusal: 429, too many wait; 503, the log cannot be written, or what was appended cannot be folded.
        """
        if not events.num_rows:
            return
        loop = asyncio.get_running_loop()
        waiting = _Waiting(events, loop, loop.create_future())
        with self._changed:
            if self._events + events.num_rows > self._max_events:
                raise Refusal(429, f"{self._events:,} events wait to be written; try again", retry_after=1)
            self._waiting.append(waiting)
            self._events += events.num_rows
            self._changed.notify()
        await waiting.done

    def close(self) -> None:
        """Appends what waits, ends the thread and closes the log."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()
        self._log.close()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_closed)
                taken, self._waiting, self._events = self._waiting, [], 0
            if not taken:
                return
            for alike in _alike(taken):
                error = self._append(pa.Table.from_batches([w.events for w in alike]).combine_chunks())
                for waiting in alike:
                    waiting.end(error)

    def _append(self, events: pa.Table) -> Refusal | None:
        try:
            (batch,) = events.to_batches()
            parts = by_partition(batch, self._log.num_partitions)
            positions = {partition: self._log.append(partition, part) for partition, part in parts.items()}
            if self._running is not None and self._running.counts(batch):
                self._running.reach(positions)
        except EventLogError as error:
            return Refusal(503, f"the event log cannot be written: {error.message}", retry_after=1)
        except EmbtablesError as error:
            return Refusal(413, error.message)
        except Exception as error:  # the thread lives on, and whoever waits is told
            return Refusal(503, f"the event log cannot be written: {type(error).__name__}", retry_after=1)
        return None


def _alike(waiting: Sequence[_Waiting]) -> list[list[_Waiting]]:
    """Those with equal columns together, in the order of the first of each."""
    groups: list[list[_Waiting]] = []
    for each in waiting:
        for group in groups:
            if group[0].events.schema.equals(each.events.schema, check_metadata=True):
                group.append(each)
                break
        else:
            groups.append([each])
    return groups

"""`Events`: what a server does with events: those that clients send, and those of what it served.

POST /v1/events --checked--> good -> appender -> answer when durable
                   \\--bad--> dead letters, counted by reason; named in the answer
/v1/score, with log_served -> impressions -> appender -> answer when durable
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embtables.events import open_log
from embtables.events.check import EventLimits, check_events
from embtables.events.columns import EVENT_TIME
from embtables.events.dead_letters import DeadLetters
from embtables.serving.events.appender import EventAppender
from embtables.serving.events.served import impressions
from embtables.serving.running.live_running import LiveRunning
from embtables.serving.scoring.columns.json_columns import Reading, json_column
from embtables.serving.service import Scored
from embtables.serving.settings import Settings

_ROW = "embtables_row"


class Events:
    """The event log of a server; made in the process that answers.

    Args:
        running: folds what is appended before it is answered.

    Attributes:
        logs_served: whether what is answered is logged.

    Raises:
        ConfigError: the URI is wrong, or a package that it needs is missing.
        EventLogError: the log cannot be opened.
    """

    def __init__(self, settings: Settings, running: LiveRunning | None = None) -> None:
        assert settings.events is not None
        self.logs_served = settings.log_served
        self._limits = EventLimits(
            max_ahead_seconds=settings.event_max_ahead_seconds, max_behind_days=settings.event_max_behind_days
        )
        self._dead = None if settings.dead_letters is None else DeadLetters(settings.dead_letters)
        self._appender = EventAppender(open_log(settings.events), running)
        self._running = running

    async def take(self, events: pa.RecordBatch) -> list[tuple[int, str]]:
        """Appends what clients sent; returns (row, reason) of each that was refused, when all others are durable, and
        folded where a running feature counts them.

        Raises:
            Refusal: 413, 429, 503.
        """
        numbered = events.append_column(_ROW, pa.array(np.arange(events.num_rows)))
        checked = check_events(numbered, _clock_us(), self._limits)
        rows: Sequence[int] = checked.bad.column(_ROW).to_pylist()
        if rows and self._dead is not None:
            await asyncio.to_thread(self._dead.add, checked.bad.drop_columns([_ROW]), checked.reasons)
        good = checked.good
        refused: list[tuple[int, str]] = list(zip(rows, checked.reasons, strict=True))
        other = None if self._running is None else self._running.of_other_kinds(good)
        if other is not None:
            mask, column = other
            bad, good = good.filter(mask), good.filter(pc.invert(mask))
            reasons = [f"ids_of_another_kind: {column}"] * bad.num_rows
            refused += zip(bad.column(_ROW).to_pylist(), reasons, strict=True)
            if self._dead is not None:
                await asyncio.to_thread(self._dead.add, bad.drop_columns([_ROW]), reasons)
        if good.num_rows:
            await self._appender.append(good.drop_columns([_ROW]))
        return sorted(refused)

    async def served(self, request_id: str, scored: Scored) -> int:
        """Logs what was answered; returns how many impressions it is. Raises as `take`."""
        if scored.served is None:
            return 0
        events = impressions(request_id, scored, scored.served())
        await self._appender.append(events)
        return int(events.num_rows)

    def close(self) -> None:
        """Writes what waits, and closes the log."""
        self._appender.close()
        if self._dead is not None:
            self._dead.close()


def batch_of(events: Sequence[dict[str, object]]) -> pa.RecordBatch:
    """JSON events as rows; one without a time happened now. Raises Refusal 422: a column's values are of two kinds."""
    now = _clock_us()
    names = list(dict.fromkeys(name for event in events for name in event))
    columns = {}
    for name in names:
        values = [event.get(name) for event in events]
        reading: Reading = "times" if name == EVENT_TIME else "numbers"
        columns[name] = json_column(name, values, reading, lambda column, row: f"events.{row}.{column}")
    times = columns.get(EVENT_TIME, pa.nulls(len(events)))
    if times.null_count and (pa.types.is_null(times.type) or pa.types.is_timestamp(times.type)):
        columns[EVENT_TIME] = times.cast(pa.timestamp("us")).fill_null(pa.scalar(now, pa.timestamp("us")))
    return pa.record_batch(columns)


def _clock_us() -> int:
    return time.time_ns() // 1_000

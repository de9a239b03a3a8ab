"""A flow of batches cut into intervals of event time, or of rows: the stretches of an online run.

    flow --items--> clock --> interval: the items until the clock passes a multiple of sync_seconds (or sync_rows rows)

What servers get is what was learned by the end of an interval. The clock is that of a table that expires rows
(embtables/tables/clock.py), so a stray time ends nothing. Samples of an event log come late by their windows, so there
it follows the watermark: else intervals would stand still for a window wherever negatives come after positives. A cut
depends on the items alone: a replay, and a run that is resumed, cut alike, on any number of ranks. Where events stop,
the wall's clock ends an interval that has rows.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Protocol

import pyarrow as pa
import torch
from pydantic import Field, ValidationError

from embtables.errors import StateError
from embtables.inputs.batch import Batch
from embtables.pipelines.config import Online
from embtables.pipelines.sources.protocol import SourcePosition
from embtables.pipelines.training.rank_agreement import rank_0_says
from embtables.schema import Model, error_lines
from embtables.shard.world import World
from embtables.tables.clock import EventClock

DEFAULT_SYNC_SECONDS = 300.0

_Count = Annotated[int, Field(strict=True, ge=0, lt=2**63)]


class FlowItem(Protocol):
    """A rank's part of a batch, the columns that figures read beside it, and the position after the whole batch."""

    @property
    def batch(self) -> Batch:
        """The rank's rows; none where there was nothing to wait for any longer."""

    @property
    def position(self) -> SourcePosition:
        """The same at every rank."""

    @property
    def extra(self) -> pa.Table | None:
        """(B,) columns for figures; None: none were asked for."""


class Flow(Protocol):
    """Batches in the order in which they are trained on."""

    @property
    def bad_files(self) -> Mapping[str, str]:
        """Files that were set aside so far, with the reason."""

    @property
    def quarantined(self) -> Mapping[str, int]:
        """Bad rows of this rank that were set aside so far, by cause."""

    @property
    def total_rows_hint(self) -> int | None:
        """About how many rows there are in all, if that is known."""

    @property
    def reached_us(self) -> int | None:
        """Event time up to which the flow was read when it gave its last item; None: the item's own rows tell it."""

    def items(self, position: Mapping[str, Any] | None) -> Generator[FlowItem, None, None]:
        """What follows a position of an item (None: from the beginning). Ends where the flow does."""


class _Content(Model):
    """The JSON of a position."""

    flow: dict[str, Any] | None
    clock: Annotated[int, Field(strict=True, ge=0, lt=2**32)]
    until: _Count | None
    rows: _Count


@dataclass(frozen=True, slots=True)
class IntervalPosition:
    """Where an online run stands.

    Attributes:
        flow: the position in the flow; None: at its beginning.
        clock: seconds of event time; 0: no event yet.
        until: the clock at which the present interval ends; None: it has not begun, or is one of rows.
        rows: of the present interval so far, of all ranks.
    """

    flow: dict[str, Any] | None = None
    clock: int = 0
    until: int | None = None
    rows: int = 0

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and texts."""
        return {"flow": self.flow, "clock": self.clock, "until": self.until, "rows": self.rows}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> IntervalPosition:
        """Reads what `to_json` wrote. Raises StateError if it is something else."""
        try:
            read = _Content.model_validate(content)
        except ValidationError as error:
            raise StateError(f"the position of the online run is damaged: {error_lines(error)[0]}") from None
        return cls(read.flow, read.clock, read.until, read.rows)

    def ended(self) -> IntervalPosition:
        """The beginning of the next interval."""
        return replace(self, until=None, rows=0)


@dataclass(frozen=True, slots=True)
class IntervalItem:
    """An item of a flow, and the position of the online run after it.

    Attributes:
        clock: seconds of event time after the batch.
    """

    batch: Batch
    position: IntervalPosition
    extra: pa.Table | None

    @property
    def clock(self) -> int:
        """Seconds of event time after the batch."""
        return self.position.clock


class Interval:
    """A stretch: what is trained on between two versions for servers."""

    def __init__(self, source: Intervals, begun: IntervalPosition) -> None:
        self._source = source
        self._last = begun
        self._ahead: deque[IntervalItem] = deque()
        self._is_over = source.is_due(begun)  # a run may have been stopped with its last batch
        self._since = time.monotonic()
        self._set_aside_before = source.set_aside

    @property
    def title(self) -> str:
        """See Stretch."""
        return "online"

    @property
    def total_rows_hint(self) -> int | None:
        """See Stretch."""
        return self._source.flow.total_rows_hint

    @property
    def quarantined(self) -> Mapping[str, int]:
        """See Stretch."""
        return self._source.quarantined_since(self._set_aside_before)

    @property
    def next_position(self) -> Mapping[str, Any]:
        """See Stretch."""
        return self._last.ended().to_json()

    def look_ahead(self) -> list[IntervalItem]:
        """All items of the interval, before any is trained on: they are held in memory."""
        self._ahead.extend(self._items())
        return list(self._ahead)

    def __iter__(self) -> Generator[IntervalItem, None, None]:
        while self._ahead:
            yield self._ahead.popleft()
        yield from self._items()

    def _items(self) -> Generator[IntervalItem, None, None]:
        while not self._is_over:
            item = self._source.take(self._last)
            if item is None:
                self._is_over = True
                return
            is_empty = item.position.rows == self._last.rows  # at all ranks
            self._last = item.position
            self._is_over = self._source.is_due(item.position) or (
                is_empty and self._source.is_overdue(item.position, self._since)
            )
            yield item


class Intervals:
    """A flow as a `BatchSource`: one stretch for each interval."""

    def __init__(self, flow: Flow, online: Online, world: World) -> None:
        self.flow = flow
        self._rows = online.sync_rows
        self._seconds = online.sync_seconds or DEFAULT_SYNC_SECONDS
        self._max_step = online.max_clock_step_seconds
        self._world = world
        self._items: Generator[FlowItem, None, None] | None = None
        self._at: dict[str, Any] | None = None  # the flow's position after what was taken
        self._first: FlowItem | None = None
        self.set_aside: dict[str, int] = {}  # by cause the bad rows up to what was taken last

    @property
    def bad_files(self) -> Mapping[str, str]:
        """See BatchSource."""
        return self.flow.bad_files

    def stretch(self, number: int, position: Mapping[str, Any] | None) -> Interval | None:
        """See BatchSource: an interval; the number says only how many there were."""
        begun = IntervalPosition() if position is None else IntervalPosition.from_json(position)
        if self.is_due(begun):  # nothing is taken: what is saved now is of this position
            return Interval(self, begun)
        if self._items is None or begun.flow != self._at:
            self.close()
            self._items, self._at = self.flow.items(begun.flow), begun.flow
        if self._first is None:
            self._first = next(self._items, None)
        return None if self._first is None else Interval(self, begun)

    def take(self, last: IntervalPosition) -> IntervalItem | None:
        """The next item, after one with a position; None where the flow ends."""
        assert self._items is not None, "items are taken from a stretch"
        item, self._first = self._first, None
        if item is None:
            item = next(self._items, None)
        self.set_aside = dict(self.flow.quarantined)
        if item is None:
            return None
        self._at = item.position.to_json()
        clock, rows = self._advanced(last.clock, item.batch)
        until = last.until
        if until is None and self._rows is None and clock:
            # Multiples of the interval: two runs over the same days publish at the same moments.
            begun = last.clock or clock
            until = int((begun // self._seconds + 1) * self._seconds)
        return IntervalItem(item.batch, IntervalPosition(self._at, clock, until, last.rows + rows), item.extra)

    def is_due(self, position: IntervalPosition) -> bool:
        """Whether the interval ends here."""
        if self._rows is not None:
            return position.rows >= self._rows
        return position.until is not None and position.clock >= position.until

    def is_overdue(self, position: IntervalPosition, since: float) -> bool:
        """Whether an interval that has rows ends, although events do not go on: by the wall's clock of rank 0, which
        showed `since` when it began.
        """
        return position.rows > 0 and rank_0_says(self._world, lambda: time.monotonic() - since >= self._seconds)

    def quarantined_since(self, before: Mapping[str, int]) -> dict[str, int]:
        """By cause the bad rows that were set aside up to what was taken last, without those before."""
        found = {cause: rows - before.get(cause, 0) for cause, rows in self.set_aside.items()}
        return {cause: rows for cause, rows in found.items() if rows}

    def close(self) -> None:
        """Ends the flow."""
        if self._items is not None:
            self._items.close()
        self._items = self._first = None

    def _advanced(self, clock: int, batch: Batch) -> tuple[int, int]:
        """The clock after the batch of all ranks, and its rows."""
        assert batch.event_time_us is not None, "an online run has an event time"
        times, reached = torch.cat(self._world.all_gather(batch.event_time_us)), self.flow.reached_us
        observed = times if reached is None else torch.tensor([reached])
        return EventClock(self._max_step, clock).observe(observed), len(times)

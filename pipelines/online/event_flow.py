"""`EventFlow`: samples of an event log as training batches; a `Flow` without an end, unless it is replayed.

    event log --JoinedEvents--> samples --features stage--> batch, position

The position of a batch is the small part of the reader's state, as JSON. The large part, open impressions among it, is
`tables()`: a version that holds a position holds the tables of the same moment, and both begin the flow again.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embtables.arrow.types import take_column
from embtables.errors import DataError, StateError
from embtables.events.protocol import EventLog
from embtables.inputs.batch import Batch
from embtables.inputs.features import Block, FeatureTransform, FittedTransforms, Needs, make_batch
from embtables.inputs.times import as_microseconds
from embtables.inputs.values import BadRowsError, one_array
from embtables.pipelines.online.join.joined_events import JoinedEvents, JoinedState
from embtables.pipelines.online.join.joiner import SetAside
from embtables.schema import EventSamples, EventTime, Schema
from embtables.shard.world import World


@dataclass(frozen=True, slots=True)
class JoinedPosition:
    """See SourcePosition: the small part of a JoinedState."""

    content: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """See SourcePosition."""
        return dict(self.content)


@dataclass(frozen=True, slots=True)
class JoinedItem:
    """See FlowItem; a batch without rows where there was no sample for a moment."""

    batch: Batch
    position: JoinedPosition
    extra: pa.Table | None


class EventFlow:
    """A `Flow` of the samples that an event log gives; each rank reads some of its partitions.

    Args:
        log: what is read.
        events: how events are joined.
        schema: what the model reads of a sample; its only label is the joiner's.
        fitted: transforms fitted on training data.
        needs: what the task reads of labels and sample weights.
        batch_rows: samples of a batch of all ranks, at most; each has its part of them, and at least one.
        world: the ranks.
        is_replay: see JoinedEvents.
        set_aside: receives events that give no sample, and samples with a value that has no meaning.
        tables: of the version whose position the run goes on from, those of this rank's partitions.
        extra_columns: of impressions, handed out beside each batch.
        begin_after_us: samples whose event time is up to this are left out, and counted as `before_begin`.
        now: see JoinedEvents.
    """

    bad_files: Mapping[str, str] = {}
    total_rows_hint: int | None = None

    def __init__(
        self,
        log: EventLog,
        events: EventSamples,
        schema: Schema,
        fitted: FittedTransforms,
        *,
        needs: Needs,
        batch_rows: int,
        world: World,
        is_replay: bool,
        set_aside: SetAside,
        tables: Mapping[str, pa.Table] | None = None,
        extra_columns: Sequence[str] = (),
        begin_after_us: int | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._samples = events
        self._label = schema.labels[0].column
        self._transform = FeatureTransform.for_training(schema, fitted, needs)
        part = world.part_of(batch_rows)
        self._batch_rows = max(1, part.stop - part.start)
        self._world = world
        self._is_replay = is_replay
        self._set_aside = set_aside
        self._tables = tables
        self._extra_columns = tuple(extra_columns)
        self._is_new = None
        if begin_after_us is not None and schema.event_time is not None:
            self._is_new = partial(_is_after, schema.event_time, begin_after_us)
        self._now = now
        self._events: JoinedEvents | None = None
        self._bad: Counter[str] = Counter()

    @property
    def quarantined(self) -> Mapping[str, int]:
        """See Flow: samples with a bad value. What the joiner set aside is in its counts."""
        return self._bad

    @property
    def warnings(self) -> list[str]:
        """What a user should know of how the log is divided over the ranks."""
        ranks, partitions = self._world.size, self._log.num_partitions
        if ranks <= partitions:
            return []
        return [f"the event log has {partitions} partitions, so {ranks - partitions} of {ranks} workers read nothing"]

    @property
    def reached_us(self) -> int | None:
        """See Flow: the greatest watermark of a rank, for one that has no news does not hold intervals."""
        return None if self._events is None else self._events.reached_us

    @property
    def counts(self) -> Mapping[str, int]:
        """What joiners made of events, by name, of all ranks."""
        return {} if self._events is None else self._events.counts

    def tables(self) -> dict[str, pa.Table]:
        """What a version holds of this rank beside the position of the batch that was given last; see JoinedState."""
        if self._events is None:  # nothing was taken yet
            return dict(self._tables or {})
        return dict(self._events.state().tables)

    def items(self, position: Mapping[str, Any] | None) -> Generator[JoinedItem, None, None]:
        """See Flow.

        Raises:
            StateError: the position is not one of this flow, or has no tables beside it.
        """
        state = None
        if position is not None:
            if self._tables is None:
                raise StateError("the version has a position in an event log, and not the tables that belong to it")
            state = JoinedState(position, self._tables)
        self._events = events = JoinedEvents(
            self._log,
            self._samples,
            self._label,
            batch_rows=self._batch_rows,
            is_replay=self._is_replay,
            set_aside=self._set_aside,
            columns=[*self._transform.columns, *self._extra_columns],
            world=self._world,
            is_new=self._is_new,
            state=state,
            now=self._now,
        )
        with closing(events.batches()) as batches:
            for samples in batches:
                block, kept = self._converted(samples)
                batch = make_batch(self._transform.names, [(block, 0, block.num_rows)])
                extra = self._extra(kept) if self._extra_columns else None
                yield JoinedItem(batch, JoinedPosition(events.content()), extra)

    def _converted(self, samples: pa.RecordBatch) -> tuple[Block, pa.RecordBatch]:
        """The samples whose values all have a meaning; the others are set aside."""
        while samples.num_rows:
            try:
                return self._transform.convert(samples), samples
            except BadRowsError as error:
                cause = f"{error.column}: {error.message}"
                self._bad[cause] += len(error.rows)
                self._set_aside(cause, samples.take(pa.array(error.rows)))
                is_good = np.ones(samples.num_rows, np.bool_)
                is_good[error.rows] = False
                samples = samples.filter(pa.array(is_good))
        return self._transform.empty(), samples

    def _extra(self, samples: pa.RecordBatch) -> pa.Table:
        """Columns for figures; one that impressions lack is null."""
        rows, names = samples.num_rows, samples.schema.names
        columns = {n: samples.column(n) if n in names else pa.nulls(rows) for n in self._extra_columns}
        return pa.table(columns)


def _is_after(event_time: EventTime, begin_after_us: int, samples: pa.RecordBatch) -> npt.NDArray[np.bool_]:
    """Which samples are later than a time; those whose time has no meaning too, for that is said where they are
    converted."""
    is_new, places = np.ones(samples.num_rows, np.bool_), np.arange(samples.num_rows)
    column = take_column(samples, event_time.column)
    if column is None:
        return is_new
    times = one_array(column)
    while len(places):
        try:
            is_new[places] = as_microseconds(event_time, times.take(pa.array(places))) > begin_after_us
        except BadRowsError as error:
            places = np.delete(places, error.rows)
            continue
        except DataError:
            pass
        break
    return is_new

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
from typing import Any

import numpy as np
import pyarrow as pa

from embtables.errors import StateError
from embtables.events.protocol import EventLog
from embtables.inputs.batch import Batch
from embtables.inputs.features import Block, FeatureTransform, FittedTransforms, Needs, make_batch
from embtables.inputs.values import BadRowsError
from embtables.pipelines.online.joined_events import JoinedEvents, JoinedState
from embtables.pipelines.online.joiner import SetAside
from embtables.schema import EventSamples, Schema


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
    """A `Flow` of the samples that an event log gives; one process reads all partitions.

    Args:
        log: what is read.
        events: how events are joined.
        schema: what the model reads of a sample; its only label is the joiner's.
        fitted: transforms fitted on training data.
        needs: what the task reads of labels and sample weights.
        batch_rows: samples of a batch, at most.
        is_replay: see JoinedEvents.
        set_aside: receives events that give no sample, and samples with a value that has no meaning.
        tables: of the version whose position the run goes on from.
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
        self._batch_rows = batch_rows
        self._is_replay = is_replay
        self._set_aside = set_aside
        self._tables = tables
        self._extra_columns = tuple(extra_columns)
        self._begin_after_us = begin_after_us
        self._now = now
        self._events: JoinedEvents | None = None
        self._bad: Counter[str] = Counter()

    @property
    def quarantined(self) -> Mapping[str, int]:
        """See Flow: samples with a bad value. What the joiner set aside is in its counts."""
        return self._bad

    @property
    def counts(self) -> Mapping[str, int]:
        """What the joiner made of events, by name."""
        return {} if self._events is None else self._events.joiner.counts

    def tables(self) -> dict[str, pa.Table]:
        """What a version holds beside the position of the batch that was given last; see JoinedState."""
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
            state=state,
            now=self._now,
        )
        with closing(events.batches()) as batches:
            for samples in batches:
                block, kept = self._after_begin(*self._converted(samples))
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

    def _after_begin(self, block: Block, samples: pa.RecordBatch) -> tuple[Block, pa.RecordBatch]:
        """The samples that no run before was trained on."""
        if self._begin_after_us is None or block.event_time_us is None or not block.num_rows:
            return block, samples
        is_new = block.event_time_us > self._begin_after_us
        if is_new.all():
            return block, samples
        assert self._events is not None, "samples come from events"
        self._events.joiner.counts["before_begin"] += int((~is_new).sum())
        return block.take(np.flatnonzero(is_new)), samples.filter(pa.array(is_new))

    def _extra(self, samples: pa.RecordBatch) -> pa.Table:
        """Columns for figures; one that impressions lack is null."""
        rows, names = samples.num_rows, samples.schema.names
        columns = {n: samples.column(n) if n in names else pa.nulls(rows) for n in self._extra_columns}
        return pa.table(columns)

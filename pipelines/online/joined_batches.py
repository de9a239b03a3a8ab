"""`JoinedBatches`: samples of an event log as training batches; a `BatchSource` of one stretch without an end.

The position of a batch is the small part of the reader's state, as JSON. The large part, open impressions among it, is
`tables()`: a version that holds a position holds the tables of the same moment, and both begin the source again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Mapping
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
from embtables.schema import Online, Schema


@dataclass(frozen=True, slots=True)
class JoinedPosition:
    """See SourcePosition: the small part of a JoinedState."""

    content: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """See SourcePosition."""
        return dict(self.content)


@dataclass(frozen=True, slots=True)
class JoinedItem:
    """See SourceItem."""

    batch: Batch
    position: JoinedPosition


class JoinedBatches:
    """A `BatchSource` of the samples that an event log gives; one rank reads all partitions.

    Args:
        log: what is read.
        online: how events are joined.
        schema: what the model reads of a sample; its only label is the joiner's.
        fitted: transforms fitted on training data.
        needs: what the task reads of labels and sample weights.
        batch_rows: samples of a batch, at most.
        is_replay: see JoinedEvents.
        set_aside: receives events that give no sample, and samples with a value that has no meaning.
        tables: of the version whose position the run goes on from.
    """

    bad_files: Mapping[str, str] = {}

    def __init__(
        self,
        log: EventLog,
        online: Online,
        schema: Schema,
        fitted: FittedTransforms,
        *,
        needs: Needs,
        batch_rows: int,
        is_replay: bool,
        set_aside: SetAside,
        tables: Mapping[str, pa.Table] | None = None,
    ) -> None:
        self._log = log
        self._online = online
        self._label = schema.labels[0].column
        self._transform = FeatureTransform.for_training(schema, fitted, needs)
        self._batch_rows = batch_rows
        self._is_replay = is_replay
        self._set_aside = set_aside
        self._tables = tables
        self._events: JoinedEvents | None = None

    def tables(self) -> dict[str, pa.Table]:
        """What a version holds beside the position of the batch that was given last; see JoinedState."""
        return {} if self._events is None else dict(self._events.state().tables)

    def stop(self) -> None:
        """Ends the stretch soon. Any thread may call it."""
        if self._events is not None:
            self._events.stop()

    def stretch(self, number: int, position: Mapping[str, Any] | None) -> JoinedStretch | None:
        """See BatchSource."""
        if number > 0:
            return None
        state = None
        if position is not None:
            if self._tables is None:
                raise StateError("the version has a position in an event log, and not the tables that belong to it")
            state = JoinedState(position, self._tables)
        self._events = JoinedEvents(
            self._log,
            self._online,
            self._label,
            batch_rows=self._batch_rows,
            is_replay=self._is_replay,
            set_aside=self._set_aside,
            columns=self._transform.columns,
            state=state,
        )
        return JoinedStretch(self._events, self._transform, self._set_aside)


class JoinedStretch:
    """See Stretch: all batches there are."""

    title = "events"
    total_rows_hint: int | None = None

    def __init__(self, events: JoinedEvents, transform: FeatureTransform, set_aside: SetAside) -> None:
        self._events = events
        self._transform = transform
        self._set_aside = set_aside
        self._bad: Counter[str] = Counter()

    @property
    def quarantined(self) -> Mapping[str, int]:
        """See Stretch: samples with a bad value. What the joiner set aside is in its counts."""
        return self._bad

    def __iter__(self) -> Generator[JoinedItem, None, None]:
        with closing(self._events.batches()) as batches:
            for samples in batches:
                block = self._converted(samples)
                batch = make_batch(self._transform.names, [(block, 0, block.num_rows)])
                yield JoinedItem(batch, JoinedPosition(self._events.content()))

    def _converted(self, samples: pa.RecordBatch) -> Block:
        """The samples whose values all have a meaning; the others are set aside."""
        while True:
            try:
                return self._transform.convert(samples)
            except BadRowsError as error:
                cause = f"{error.column}: {error.message}"
                self._bad[cause] += len(error.rows)
                self._set_aside(cause, samples.take(pa.array(error.rows)))
                is_good = np.ones(samples.num_rows, np.bool_)
                is_good[error.rows] = False
                samples = samples.filter(pa.array(is_good))

"""`RunningFeatures`: columns of what happened before, by one fold, for a log that is prepared and for a server.

    events --fold--> state by key --columns(questions)--> counts over windows, ages, last values, last ids

A question at time t about a key is about its events strictly before t; a window counts those in [t - window, t). A
question no further than `lateness_seconds` before the clock has its exact answer, whatever order events came in.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from embtables.errors import ConfigError, DataError, StateError
from embtables.inputs.times import as_microseconds
from embtables.inputs.values import BadRowsError, one_array
from embtables.inputs.where import condition_mask
from embtables.running.clock import FoldClock
from embtables.running.key_group import SECOND_US, KeyGroup
from embtables.running.key_table import Int64s, KeyTable
from embtables.running.state import FORMAT, RunningCounts, RunningState
from embtables.schema import EventTime
from embtables.schema.running import RunningFeature, RunningOptions, check_running

Rows: TypeAlias = pa.Table | pa.RecordBatch
_COUNTED = ("events", "late_events", "late_questions")


class RunningFeatures:
    """A fold of events, and the columns that it answers with.

    Any number of threads may ask (`columns`) while one folds; who folds, loads or takes the state waits for another
    that does.

    Args:
        definitions: each with a name of its own.

    Raises:
        ConfigError: they do not go together, or with the options.

    Example:
        >>> import pyarrow as pa
        >>> from embtables.running import RunningFeatures
        >>> from embtables.schema import RunningFeature
        >>> sales = RunningFeatures([RunningFeature(name="sales_1d", count="events", by="item", window="1d")])
        >>> at = pa.array([0, 3_600_000_000], pa.timestamp("us"))
        >>> sales.fold(pa.record_batch({"item": ["a", "a"], "event_time": at}))
        >>> asked = pa.record_batch({"item": ["a", "b"], "event_time": at.take(pa.array([1, 1]))})
        >>> sales.columns(asked)["sales_1d"].to_pylist()
        [1.0, 0.0]
    """

    def __init__(self, definitions: Sequence[RunningFeature], options: RunningOptions | None = None) -> None:
        self.definitions = tuple(definitions)
        self.options = options or RunningOptions()
        try:
            check_running(self.definitions, self.options)
        except ValueError as error:
            raise ConfigError(f"running: {error}") from error
        grouped: dict[object, list[RunningFeature]] = {}
        for feature in self.definitions:
            grouped.setdefault((feature.by, feature.where), []).append(feature)
        self._groups = [KeyGroup(features, self.options) for features in grouped.values()]
        self._of_name = {name: group for group in self._groups for name in group.names}
        self._columns = tuple(dict.fromkeys(name for group in self._groups for name in group.columns))
        self._event_time = EventTime(column=self.options.event_time)
        self._lateness = self.options.lateness_seconds * SECOND_US
        self._clock = FoldClock(self.options.max_clock_step_seconds * SECOND_US)
        self._counts: Counter[str] = Counter()
        self._ignored: Counter[str] = Counter()
        self._writer = threading.Lock()
        self._counting = threading.Lock()

    @property
    def names(self) -> tuple[str, ...]:
        """The columns that it answers with, in order."""
        return tuple(feature.name for feature in self.definitions)

    def fold(self, events: Rows, *, in_order: bool = False) -> None:
        """Takes a batch of events in, in their order.

        A column that the batch has not is null in all its rows. Rows that cannot be used, and events without a key,
        are counted (`counts`), and the others go on.

        Args:
            events: (n,) with the event time, and the columns that the features read.
            in_order: batches are known to come in order of time, so that the clock goes to the first time of each,
                however far that is.

        Raises:
            DataError: a column's type cannot be what a feature makes of it; nothing was taken in.
            ConfigError: the same of a condition's column.
        """
        with self._writer:
            usable, bad = self._with_absent(events), Counter[str]()
            while True:
                try:
                    if in_order and usable.num_rows:
                        self._clock.advance(int(self._times(usable).min()))
                    self._take(usable, in_order=in_order)
                    # Not before: a batch that is refused may come again without the column.
                    self._count(bad, events=bad.total())
                    return
                except BadRowsError as error:
                    bad[error.column] += len(error.rows)
                    kept = np.delete(np.arange(usable.num_rows), error.rows)
                    usable = usable.take(pa.array(kept))

    def columns(self, questions: Rows, names: Sequence[str] | None = None) -> dict[str, pa.Array]:
        """The columns of n questions, by name: float32, and lists of int64 for `last_n`. A null key has no events.

        Args:
            questions: (n,) with the event time, and the columns that the features are `by`.
            names: those wanted; by default all.

        Raises:
            BadRowsError: a time is null, or values cannot be ids.
            DataError: a column is missing or of the wrong type, or there is no such feature.
        """
        wanted = self.names if names is None else tuple(names)
        for name in wanted:
            if name not in self._of_name:
                raise DataError(f"there is no running feature '{name}'; there are: {', '.join(self.names)}")
        times = self._times(questions)
        now = self._clock.now
        if now is not None and len(times) and int(times.min()) < now - self._lateness:
            with self._counting:
                self._counts["late_questions"] += int(np.count_nonzero(times < now - self._lateness))
        table = KeyTable(questions)
        found: dict[str, pa.Array] = {}
        for group in dict.fromkeys(self._of_name[name] for name in wanted):
            found |= group.ask(table, times)
        return {name: found[name] for name in wanted}

    def replay(self, events: Rows, questions: Rows) -> dict[str, pa.Array]:
        """The columns of questions about a log that is known to be in order, and the events at their times.

        Calls come in order of time: no event or question is earlier than those of a former call. Every answer is exact,
        since the clock stands still from the first event or question of a call to its last.

        Raises:
            BadRowsError, DataError: as `fold` and `columns` do; here no row is left out.
        """
        with self._writer:
            moments = [times.min() for times in (self._times(events), self._times(questions)) if len(times)]
            if moments:
                self._clock.advance(int(min(moments)))
            self._take(events, in_order=True)
        return self.columns(questions)

    def _take(self, events: Rows, *, in_order: bool) -> None:
        table, times = KeyTable(events), self._times(events)
        masks = {
            where: condition_mask(events, where) if where else None for where in {group.where for group in self._groups}
        }
        prepared = [(group, group.prepared(table, times, masks[group.where])) for group in self._groups]
        # Everything that can be wrong was looked at: from here on all groups take the events, or none did.
        if not in_order:
            self._clock.observe(times)
        now = self._clock.now
        if now is None:
            return
        for group, of_group in prepared:
            group.fold(of_group, now)
        ignored = Counter({", ".join(g.by): of.without_key for g, of in prepared if of.without_key})
        self._count(ignored, events=len(times), late_events=int(np.count_nonzero(times < now - self._lateness)))

    def _count(self, ignored: Counter[str], **counts: int) -> None:
        with self._counting:
            self._ignored.update(ignored)
            self._counts.update(counts)

    def _times(self, rows: Rows) -> Int64s:
        column = self._event_time.column
        if column not in rows.schema.names:
            raise DataError(f"is missing; there are: {', '.join(rows.schema.names)}", column=column)
        times = as_microseconds(self._event_time, one_array(rows.column(column)))
        return np.ascontiguousarray(times)

    def _with_absent(self, events: Rows) -> Rows:
        """The events, with nulls for the columns that they have not."""
        known = events.schema.names
        absent = [name for name in self._columns if name not in known and name.split(".")[0] not in known]
        for name in absent:
            events = events.append_column(name, pa.nulls(events.num_rows))
        return events

    @property
    def counts(self) -> RunningCounts:
        """What became of events and questions so far."""
        with self._counting:
            counts, ignored = dict(self._counts), dict(self._ignored)
        return RunningCounts(**counts, held_back=self._clock.held_back, ignored=ignored)

    @property
    def clock(self) -> int | None:
        """Microseconds of event time; None: there was no event yet."""
        return self._clock.now

    @property
    def num_keys(self) -> int:
        """How many keys have a state, over all groups of features with the same `by` and `where`."""
        return sum(group.num_keys for group in self._groups)

    @property
    def bytes(self) -> int:
        """Memory of the state."""
        return sum(group.bytes for group in self._groups)

    def state(self) -> RunningState:
        """All of it, between two batches. The same events in the same batches give the same."""
        with self._writer:
            images = tuple(group.image() for group in self._groups)
            return RunningState(self._described(), self._clock.now, self.counts, images)

    def load(self, state: RunningState) -> None:
        """Goes on from a state; what was known before is forgotten.

        Raises:
            StateError: it belongs to other definitions, or is damaged.
        """
        if state.definitions != self._described():
            raise StateError(
                "the state of running features was made with other definitions or options: "
                f"{_shortened(state.definitions)}; now they are {_shortened(self._described())}. Fold the log again"
            )
        if len(state.groups) != len(self._groups):
            raise StateError(f"has {len(state.groups)} groups of keys, expected {len(self._groups)}")
        clock = -(2**63) if state.clock is None else state.clock
        try:
            loaded = [group.loaded(of, clock) for group, of in zip(self._groups, state.groups, strict=True)]
        except (ValueError, RuntimeError) as error:
            raise StateError(f"the state of running features is damaged: {error}") from error
        with self._writer, self._counting:
            for group, of in zip(self._groups, loaded, strict=True):
                group.replace(of)
            self._clock = FoldClock(self.options.max_clock_step_seconds * SECOND_US, state.clock)
            self._clock.held_back = state.counts.held_back
            self._counts = Counter({name: getattr(state.counts, name) for name in _COUNTED})
            self._ignored = Counter(state.counts.ignored)

    def _described(self) -> str:
        features = [feature.model_dump(mode="json") for feature in self.definitions]
        return json.dumps([FORMAT, features, self.options.model_dump(mode="json")], sort_keys=True)


def _shortened(text: str) -> str:
    return text if len(text) <= 300 else text[:297] + "..."

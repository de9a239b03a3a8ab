"""`UsableEvents`: what of an entry of the log is folded, and what is left out and counted.

entry --no events--> `damaged`  --of another kind (impressions)--> nothing  --seen before--> `repeated`
  --before the beginning--> `before_begin`  --an id of another kind than the column's--> null, and `ignored`
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embtables.arrow.types import is_list
from embtables.events.check import EventLimits, check_events
from embtables.events.columns import EVENT_ID, EVENT_TIME, IMPRESSION, KIND
from embtables.ids.strings import hash_strings
from embtables.inputs.id_kinds import IdKind, id_kind
from embtables.schema import Running
from embtables.serving.running.recent_ids import RecentIds

# Who appends looks at times; here the clock of the fold does.
_ANY_TIME = EventLimits(max_ahead_seconds=1e9, max_behind_days=1e6)


class UsableEvents:
    """See above. One thread at a time.

    Args:
        id_kinds: by column what training made ids of; of others the first events say it.
        until_us: events before it were folded otherwise; None: there are none.

    Attributes:
        ids: of the events that were seen.
        id_kinds: with those that events have said since.
        counts: what was left out, by the words above.
        ignored: events that have no usable value in a column.
    """

    def __init__(self, running: Running, id_kinds: Mapping[str, IdKind], until_us: int | None = None) -> None:
        self._keys, self._kinds = running.keys, running.kinds
        self._by = {name for feature in running.features for name in feature.by}
        read = [name for feature in running.features for name in feature.columns]
        self._roots = {EVENT_TIME, *read, *(name.split(".")[0] for name in read)}
        self.until_us = until_us
        self.ids = RecentIds()
        self.id_kinds = {name: kind for name, kind in id_kinds.items() if name in self._keys}
        self.counts: Counter[str] = Counter()
        self.ignored: Counter[str] = Counter()

    def of(self, entry: pa.RecordBatch) -> pa.RecordBatch:
        """(n,) events that count, with the columns that features read."""
        checked = check_events(entry, time.time_ns() // 1_000, _ANY_TIME)
        self.counts["damaged"] += checked.bad.num_rows
        events = self.counted(checked.good)
        if not events.num_rows:
            return events
        kept = self.ids.take(hash_strings(events.column(EVENT_ID)))
        self.counts["repeated"] += int(np.count_nonzero(~kept))
        if self.until_us is not None:
            before = kept & (events.column(EVENT_TIME).cast(pa.int64()).to_numpy() < self.until_us)
            self.counts["before_begin"] += int(np.count_nonzero(before))
            kept &= ~before
        if not kept.all():
            events = events.filter(pa.array(kept))
        events = events.select([name for name in events.schema.names if name in self._roots])
        for name in self.other_kinds(events):
            events = self.without(events, name)
        self._learn_kinds(events)
        return events

    def counted(self, events: pa.RecordBatch) -> pa.RecordBatch:
        """Those of the kinds that count."""
        mask = self.counted_mask(events)
        return events if pc.all(mask).as_py() is not False else events.filter(mask)

    def counted_mask(self, events: pa.RecordBatch) -> pa.Array:
        """(n,) bool which events are of the kinds that count."""
        kinds = events.column(KIND)
        if self._kinds is None:
            return pc.not_equal(kinds, IMPRESSION)
        return pc.is_in(kinds, pa.array(self._kinds))

    def other_kinds(self, events: pa.RecordBatch) -> list[str]:
        """The columns whose ids are of another kind than is known of them: each would be the id of something else."""
        found = []
        for name in self._keys:
            if name in events.schema.names and name in self.id_kinds:
                here = _kind(events.schema.field(name).type)
                if here is not None and here != self.id_kinds[name]:
                    found.append(name)
        return found

    def without(self, events: pa.RecordBatch, column: str) -> pa.RecordBatch:
        """The events with nulls in a column; those that had a value there are counted as ignored.

        Events without a key are counted by the fold, as others that have none.
        """
        place = events.schema.get_field_index(column)
        array = events.column(place)
        if column not in self._by:
            self.ignored[column] += len(array) - array.null_count
        return events.set_column(place, column, pa.nulls(len(array)))

    def _learn_kinds(self, events: pa.RecordBatch) -> None:
        for name in self._keys:
            if name in events.schema.names and name not in self.id_kinds:
                array = events.column(name)
                kind = id_kind(array.type) if _can_be_ids(array.type) and array.null_count < len(array) else None
                if kind is not None:
                    self.id_kinds[name] = kind


def _kind(kind: pa.DataType) -> str | None:
    """What ids of this type are made of; of types that cannot be ids their name; None: there are no values."""
    return id_kind(kind) if pa.types.is_null(kind) or _can_be_ids(kind) else str(kind)


def _can_be_ids(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _can_be_ids(kind.value_type)
    return not (is_list(kind) or pa.types.is_floating(kind) or pa.types.is_nested(kind))

"""`SampleJoiner`: impressions and actions of an event log become samples with a label (docs/online.md).

    entry -> keys, times -> native Joiner -> (entry, row), label -> log.fetch, Arrow take -> samples

It holds no payload: what it needs of an open impression, it reads from the log again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embtables.errors import EventsLostError, StateError
from embtables.events.protocol import Entry
from embtables.ids.mix import seeded_mix
from embtables.native import _core
from embtables.pipelines.online.join.clocks import PartitionClocks
from embtables.pipelines.online.join.entry_events import EntryEvents, EntryFaultError, ItemKind, Part, read_entry
from embtables.pipelines.online.join.payloads import EntryCache, Payloads, UInt32s, by_entry
from embtables.pipelines.online.join.samples import SampleColumns, joined
from embtables.pipelines.online.join.state import JoinerContent, JoinerState, entries_table, events_table
from embtables.schema import EventSamples

SetAside = Callable[[str, pa.RecordBatch], None]
"""Takes events that give no sample, with the reason. After a restart it is given some of them again."""

SECOND_US = 1_000_000
_JOINED, _OVERDUE, _CORRECTED, _DUPLICATE, _TOO_LATE, _TOO_EARLY = 1, 2, 3, 4, 6, 7  # outcomes of join/joiner.h
_WITHOUT_PAYLOAD = (2, 4)  # states of join/records.h


class SampleJoiner:
    """Joins the events of a partition, which has all events of a request; one thread uses it.

    What a reader joins of several partitions is of one clock and one set of columns, which their joiners share.

    Args:
        online: how events are joined.
        clocks: of the reader's partitions.
        cache: holds entries as long as their impressions are open or may be corrected.
        columns: of samples.
        set_aside: receives events that give no sample.

    Attributes:
        counts: events by what became of them. `late_positives / (positives + late_positives)` is the share of positives
            that come late.
    """

    def __init__(
        self,
        partition: int,
        online: EventSamples,
        *,
        clocks: PartitionClocks,
        cache: EntryCache,
        columns: SampleColumns,
        set_aside: SetAside,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._partition = partition
        self._clocks = clocks
        self._online = online
        self._set_aside = set_aside
        lengths = (online.window_seconds, online.late_window_seconds, online.max_skew_seconds)
        self._native = _core.Joiner(*(seconds * SECOND_US for seconds in lengths))
        self._payloads = Payloads(cache, partition)
        self._columns = columns
        self._item_kind: ItemKind | None = None
        self._closed_at: int | None = None  # the watermark at which nothing more is to be closed; None: not known

    @property
    def open_keys(self) -> int:
        """Impressions that are open or may be corrected or repeated, and actions that wait for theirs."""
        return self._native.size

    @property
    def state_bytes(self) -> int:
        """Memory of the native state."""
        return self._native.bytes

    def add(self, entry: Entry) -> pa.Table:
        """Joins an entry, read after those before it, and returns the samples that its events make positive.

        Raises:
            EventLogError: an impression's entry cannot be read again.
        """
        events = entry.events
        try:
            if not self._columns.take_up(events.schema):
                raise EntryFaultError("columns_of_another_type")
            known = self._clocks.clock(self._partition)
            latest = None if known is None else known + self._online.max_ahead_seconds * SECOND_US
            read = read_entry(events, self._online.item, self._online.actions, self._item_kind, latest)
        except EntryFaultError as fault:
            self._discard(fault.reason, events)
            return self._columns.schema.empty_table()
        self._item_kind = read.item_kind or self._item_kind
        clock = self._clocks.observe(self._partition, read.median_us)
        self.counts["ignored"] += read.ignored
        for reason, rows in read.faults.items():
            self._discard(reason, events.take(pa.array(rows)))
        if clock is None:
            return self._columns.schema.empty_table()
        self._closed_at = None  # what was added may be due already
        number = self._native.hold()
        self._payloads.add(number, entry.position, clock, events)
        samples = joined([self._add_impressions(number, read, events), self._add_actions(number, read, events)])
        self._native.release(number)
        self._payloads.drop(self._native.take_freed().tolist())
        return samples

    def close(self, most: int = 65_536) -> tuple[pa.Table, bool]:
        """Samples of windows that the watermark has passed, of about `most` impressions, and whether these were all.

        Raises:
            EventLogError: an impression's entry cannot be read again.
        """
        watermark = self._clocks.watermark()
        if watermark is None or watermark == self._closed_at:
            return self._columns.schema.empty_table(), True
        keys, times, entries, rows, is_corrected, orphan_entries, orphan_rows, done = self._native.advance(
            watermark, most
        )
        self._closed_at = watermark if done else None
        if not len(keys) and not len(orphan_entries):  # of many partitions, few have something to close at a time
            self._payloads.drop(self._native.take_freed().tolist())
            return self._columns.schema.empty_table(), done
        kept = self._is_kept(keys)
        corrected = is_corrected.view(np.bool_)
        lost = self._lost(times, entries)
        self.counts["negatives"] += int((kept & ~lost).sum())
        self.counts["negatives_dropped"] += int((~kept & ~lost).sum())
        self.counts["late_positives"] += int((corrected & ~lost).sum())
        given = (kept.astype(np.int64) + corrected) * ~lost  # a negative, its correction, or both
        places = np.repeat(np.arange(len(keys)), given)
        ends = (np.cumsum(given) - 1)[corrected & ~lost]
        labels = np.zeros(len(places), np.float32)
        labels[ends] = 1.0
        corrections = np.zeros(len(places), np.bool_)
        corrections[ends] = kept[corrected & ~lost]
        samples = self._columns.make(self._payloads, entries[places], rows[places], labels, corrections)
        self._discard_rows("orphans", orphan_entries, orphan_rows)
        self._payloads.drop(self._native.take_freed().tolist())
        return samples, done

    def content(self) -> JoinerContent:
        """The small part of `save`."""
        return JoinerContent(
            closed_until=self._native.watermark,
            item_kind=self._item_kind,
            counts=dict(sorted(self.counts.items())),
        )

    def save(self) -> JoinerState:
        """All that the joiner knows, between two calls: equal for equal events, read in equal order."""
        keys, times, entries, rows, states = self._native.save()
        in_order = self._payloads.in_order()
        renumbered = np.zeros(max((number for number, _ in in_order), default=0) + 1, np.uint32)
        for place, (number, _) in enumerate(in_order):
            renumbered[number] = place
        return JoinerState(
            self.content(),
            events_table(
                keys, times, np.where(np.isin(states, _WITHOUT_PAYLOAD), 0, renumbered[entries]), rows, states
            ),
            entries_table([entry for _, entry in in_order]),
            self._columns.schema.empty_table(),
        )

    def load(self, state: JoinerState) -> None:
        """Takes what `save` gave, into a new joiner. Raises StateError where it is not that."""
        state.check()
        content = state.content
        with state.faults():
            entries = state.entries_read()
            keys, times, of, rows, states = state.event_arrays()
            self._native.load(keys, times, of, rows, states, len(entries), content.closed_until)
        for number, (position, clock_us) in enumerate(entries):
            self._payloads.add(number, position, clock_us, None)
        if not self._columns.load(state.columns.schema):
            raise StateError(
                "has columns of other types than partitions before it, which another worker has read; go on with as "
                "many workers as before",
                partition=self._partition,
            )
        self._item_kind = content.item_kind
        self.counts = Counter(content.counts)

    def _add_impressions(self, number: int, read: EntryEvents, events: pa.RecordBatch) -> pa.Table:
        part = self._in_time(number, read.impressions, events, oldest_us=self._oldest())
        outcomes, action_entries, action_rows = self._call(self._native.impressions, number, part)
        self.counts["impressions"] += len(part.rows)
        self._count_duplicates("duplicate_impressions", outcomes)
        for outcome, reason in ((_TOO_LATE, "too_late"), (_TOO_EARLY, "too_early")):
            refused = outcomes == outcome
            self._discard_rows(reason, action_entries[refused], action_rows[refused])
        rows = part.rows[outcomes == _JOINED]
        self.counts["positives"] += len(rows)
        return self._positives(np.full(len(rows), number, np.uint32), rows, np.zeros(len(rows), np.bool_))

    def _add_actions(self, number: int, read: EntryEvents, events: pa.RecordBatch) -> pa.Table:
        part = self._in_time(number, read.actions, events, oldest_us=None)
        outcomes, entries, rows = self._call(self._native.actions, number, part)
        self.counts["actions"] += len(part.rows)
        self._count_duplicates("duplicate_actions", outcomes)
        for outcome, reason in ((_TOO_LATE, "too_late"), (_TOO_EARLY, "too_early")):
            refused = part.rows[outcomes == outcome]
            if len(refused):
                self._discard(reason, events.take(pa.array(refused)))
        corrected = outcomes == _CORRECTED
        positive = (outcomes == _JOINED) | corrected
        self.counts["positives"] += int((outcomes == _JOINED).sum())
        self.counts["late_positives"] += int(corrected.sum())
        # Where the negative was dropped, there is nothing to correct.
        corrections = (corrected & self._is_kept(part.keys))[positive]
        return self._positives(entries[positive], rows[positive], corrections)

    def _positives(self, entries: UInt32s, rows: UInt32s, corrections: npt.NDArray[np.bool_]) -> pa.Table:
        labels = np.ones(len(rows), np.float32)
        return self._columns.make(self._payloads, entries, rows, labels, corrections)

    def _call(
        self, call: Callable[..., None], number: int, part: Part
    ) -> tuple[npt.NDArray[np.uint8], UInt32s, UInt32s]:
        n = len(part.rows)
        outcomes, entries, rows = np.empty(n, np.uint8), np.empty(n, np.uint32), np.empty(n, np.uint32)
        call(number, part.keys, part.times, part.rows, outcomes, entries, rows)
        return outcomes, entries, rows

    def _oldest(self) -> int | None:
        """Impressions up to this time are past their late window."""
        until = self._native.watermark
        if until is None:
            return None
        return until - (self._online.window_seconds + self._online.late_window_seconds) * SECOND_US

    def _in_time(self, number: int, part: Part, events: pa.RecordBatch, oldest_us: int | None) -> Part:
        """Without events whose time cannot be that of an event that comes now; they are set aside."""
        newest_us = self._payloads.entry(number).clock_us + self._online.max_ahead_seconds * SECOND_US
        ahead = part.times > newest_us
        old = np.zeros_like(ahead) if oldest_us is None else part.times <= oldest_us
        for reason, wrong in (("too_far_ahead", ahead), ("too_old", old)):
            if wrong.any():
                self._discard(reason, events.take(pa.array(part.rows[wrong])))
        return part.where(~(ahead | old))

    def _is_kept(self, keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
        """Which negatives are kept: the same ones whenever it is asked."""
        rate = self._online.negative_rate
        if rate is None or rate == 1.0:
            return np.ones(len(keys), np.bool_)
        return seeded_mix(keys.view(np.int64), self._online.negative_seed) < np.uint64(int(rate * 2.0**64))

    def _lost(self, times: npt.NDArray[np.int64], entries: UInt32s) -> npt.NDArray[np.bool_]:
        """Which impressions lie in entries that the log keeps no more, though their times had been ahead of the clock.

        Such a time was wrong, or a partition was silent for long. All others are owed a sample: `make` raises for them.
        """
        lost = np.zeros(len(times), np.bool_)
        for number, places in by_entry(entries):
            entry = self._payloads.entry(number)
            newest = entry.clock_us + self._online.max_clock_step_seconds * SECOND_US
            ahead = places[times[places] > newest]
            if not len(ahead):
                continue
            try:
                self._payloads.events(number)
            except EventsLostError:
                lost[ahead] = True
                self.counts["lost_ahead"] += len(ahead)
        return lost

    def _count_duplicates(self, name: str, outcomes: npt.NDArray[np.uint8]) -> None:
        self.counts[name] += int((outcomes == _DUPLICATE).sum())

    def _discard_rows(self, reason: str, entries: UInt32s, rows: UInt32s) -> None:
        for number, places in by_entry(entries):
            try:
                events = self._payloads.events(number)
            except EventsLostError:
                self.counts[reason] += len(places)  # nothing was owed for them
                continue
            self._discard(reason, events.take(pa.array(rows[places])))

    def _discard(self, reason: str, events: pa.RecordBatch) -> None:
        self.counts[reason] += events.num_rows
        self._set_aside(reason, events)

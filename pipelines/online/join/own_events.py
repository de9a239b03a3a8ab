"""`OwnEvents`: the partitions that one rank reads, in turns, an entry each, and joins: a small piece of work at a time.

    an entry of partition 0 -> windows that this closes -> an entry of partition 1 -> ... -> samples that wait

What follows a piece of work depends on the state after it and on the log, so a reader may stop between any two. State
is kept for each partition, so that any number of ranks goes on with it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from typing import Annotated

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from embtables.errors import StateError
from embtables.events.protocol import Entry, EventLog
from embtables.pipelines.online.join.clocks import PartitionClocks
from embtables.pipelines.online.join.joiner import SECOND_US, SampleJoiner, SetAside
from embtables.pipelines.online.join.payloads import EntryCache
from embtables.pipelines.online.join.samples import SampleColumns, joined
from embtables.pipelines.online.join.state import JoinerContent, JoinerState, Time
from embtables.schema import EventSamples, Model

IsNew = Callable[[pa.RecordBatch], npt.NDArray[np.bool_]]
"""Which of n samples are given, (n,)."""

_READ_AHEAD = 16  # entries of each partition that are held before their turn
_PAYLOAD_BYTES = 256 << 20  # of decoded entries that are kept in memory


class PartitionContent(Model):
    """The small part of what a reader knows of a partition.

    Attributes:
        position: the entry that was joined last; None: none was.
        had_turn: whether its turn has been in the present round.
        clock: microseconds; None where it has had no event.
        idle: whether it does not hold the watermark.
        watermark: of the partitions that its reader reads; None where one of these has had no event.
    """

    position: str | None
    had_turn: Annotated[bool, Field(strict=True)]
    clock: Time | None
    idle: Annotated[bool, Field(strict=True)]
    watermark: Time | None
    joiner: JoinerContent


class OwnEvents:
    """One thread uses it.

    Args:
        log, online, label, set_aside, columns, is_new, now: see JoinedEvents.
        partitions: those that are read.
        idle_seconds: a partition without entries for so long is idle; None: it is where it has no entry.

    Attributes:
        num_rows: samples that are joined and not taken yet.
    """

    def __init__(
        self,
        log: EventLog,
        online: EventSamples,
        label: str,
        partitions: Collection[int],
        *,
        idle_seconds: float | None,
        set_aside: SetAside,
        columns: Collection[str] | None = None,
        is_new: IsNew | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self.partitions = sorted(partitions)
        self._idle_seconds = idle_seconds
        self._is_new = is_new
        self._now = now
        self._clocks = PartitionClocks(self.partitions, online.max_clock_step_seconds * SECOND_US)
        self._columns = SampleColumns(label, columns)
        cache = EntryCache(log, _PAYLOAD_BYTES)
        self._joiners = {
            p: SampleJoiner(p, online, clocks=self._clocks, cache=cache, columns=self._columns, set_aside=set_aside)
            for p in self.partitions
        }
        self.positions: dict[int, str] = {}
        self._to_close = deque(self.partitions)
        self._to_read = deque(self.partitions)
        self._found = False  # an entry, in this round
        self._pieces = [pa.table({})]
        self.num_rows = 0
        self._ahead: dict[int, deque[Entry]] = {partition: deque() for partition in self.partitions}
        self._last_seen = dict.fromkeys(self.partitions, now())

    @property
    def open_keys(self) -> int:
        """Impressions that are open or may be corrected or repeated, and actions that wait for theirs."""
        return sum(joiner.open_keys for joiner in self._joiners.values())

    def work(self) -> bool:
        """Joins the next entry, or closes windows. Returns False at the end of a round that has found nothing.

        Raises: as JoinedEvents.batches.
        """
        if self._to_close:
            samples, done = self._joiners[self._to_close[0]].close()
            self._add(samples)
            if done:
                self._to_close.popleft()
            return True
        if not self._to_read:
            found, self._found = self._found, False
            self._to_read.extend(self.partitions)
            return found
        partition = self._to_read.popleft()
        entry = self._next(partition)
        if entry is not None:
            self._found = True
            self._add(self._joiners[partition].add(entry))
            self.positions[partition] = entry.position
        elif self._is_silent(partition):
            self._clocks.set_idle(partition)
        self._to_close.extend(self.partitions)
        return True

    def take(self, most: int) -> pa.RecordBatch:
        """The first samples that wait, at most so many; a batch without rows and columns if there are none."""
        rows = min(most, self.num_rows)
        if not rows:
            return pa.record_batch([], names=[])
        samples = self._waiting_samples()
        self._pieces = [samples.slice(rows)]
        self.num_rows -= rows
        taken = samples.slice(0, rows).combine_chunks().to_batches()[0]
        if self._is_new is None:
            return taken
        is_new = self._is_new(taken)
        self._joiners[self.partitions[0]].counts["before_begin"] += rows - int(is_new.sum())
        return taken if is_new.all() else taken.filter(pa.array(is_new))

    def content(self) -> dict[int, PartitionContent]:
        """The small part of the state, by partition: cheap, whatever is open."""
        to_read = set(self._to_read)
        return {
            partition: PartitionContent(
                position=self.positions.get(partition),
                had_turn=partition not in to_read,
                clock=self._clocks.clock(partition),
                idle=self._clocks.is_idle(partition),
                watermark=self._clocks.reached,
                joiner=joiner.content(),
            )
            for partition, joiner in self._joiners.items()
        }

    def tables(self) -> dict[str, pa.Table]:
        """The large part, a copy: of partition p `events.p`, `entries.p` and `columns.p`; of the first one `samples.p`,
        the samples that wait, of all of them.
        """
        found: dict[str, pa.Table] = {}
        for partition, joiner in self._joiners.items():
            state = joiner.save()
            of = {"events": state.events, "entries": state.entries, "columns": state.columns}
            found |= {f"{name}.{partition}": table for name, table in of.items()}
        if self.partitions:
            found[f"samples.{self.partitions[0]}"] = self._waiting_samples()
        return found

    def load(self, content: Mapping[int, PartitionContent], tables: Mapping[str, pa.Table]) -> None:
        """Takes what readers of these partitions had, into a new one. What there is of others does not matter.

        Raises:
            StateError: it is not that; or partitions that were read apart do not go together.
        """
        known = {partition: content[partition] for partition in self.partitions if partition in content}
        for partition, of in known.items():
            events, entries, columns = (
                _table(tables, f"{name}.{partition}") for name in ("events", "entries", "columns")
            )
            self._joiners[partition].load(JoinerState(of.joiner, events, entries, columns))
            if of.position is not None:
                self.positions[partition] = of.position
            if (samples := tables.get(f"samples.{partition}")) is not None and samples.num_columns:
                self._pieces.append(samples)  # also without rows: the order of its columns goes on
                self.num_rows += samples.num_rows
        reached = [of.watermark for of in known.values() if of.watermark is not None]
        # Windows of the others were closed further: their joiners remember how far.
        least = min(reached) if len(reached) == len(self.partitions) and reached else None
        self._clocks.load({p: of.clock for p, of in known.items()}, [p for p, of in known.items() if of.idle], least)
        self._to_read = deque(p for p in self.partitions if p not in known or not known[p].had_turn)
        self._found = len(self._to_read) < len(self.partitions)  # what came before in this round may have found some

    def _next(self, partition: int) -> Entry | None:
        ahead = self._ahead[partition]
        if not ahead:
            ahead.extend(self._log.read(partition, self.positions.get(partition), max_entries=_READ_AHEAD))
            if ahead:
                self._last_seen[partition] = self._now()
        return ahead.popleft() if ahead else None

    def _is_silent(self, partition: int) -> bool:
        """Whether a partition that has no entry holds the watermark no longer."""
        if self._idle_seconds is None:
            return True
        return self._now() - self._last_seen[partition] >= self._idle_seconds

    def _add(self, samples: pa.Table) -> None:
        if samples.num_rows:
            self._pieces.append(samples)
            self.num_rows += samples.num_rows

    def _waiting_samples(self) -> pa.Table:
        """Samples that are joined and not yet taken. Entries may give one each: they are put together once a batch."""
        if len(self._pieces) > 1:
            self._pieces = [joined(self._pieces)]
        return self._pieces[0]


def _table(tables: Mapping[str, pa.Table], name: str) -> pa.Table:
    if name not in tables:
        raise StateError(f"the state has no table '{name}'")
    return tables[name]

"""`JoinedEvents`: samples of an event log in batches, with the state that goes on after each of them.

    partition 0, 1, .. in turns, an entry each -> SampleJoiner -> samples, in batches of `batch_rows`

A state holds positions, what the joiner knows, whose turn it is, and samples that are joined but not yet given. So what
follows a batch is the same whether the process went on or began again with the batch's state: bit for bit in a replay,
but for the order in which live partitions have news.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Generator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pyarrow as pa
from pydantic import Field, ValidationError

from embtables.errors import StateError
from embtables.events.protocol import Entry, EventLog
from embtables.pipelines.online.joiner import SampleJoiner, SetAside
from embtables.pipelines.online.samples import joined
from embtables.pipelines.online.state import JoinerContent, JoinerState
from embtables.schema import EventSamples, Model, error_lines
from embtables.state.format.side_file import SideFile, parse_side_file

_READ_AHEAD = 16  # entries of each partition that are held before their turn
_WAIT_SECONDS = 0.5


class JoinedContent(Model):
    """The small part of a state.

    Attributes:
        positions: by partition the entry that was joined last.
        next_partition: whose turn it is, as a place among the partitions that are read.
    """

    format: Literal[1] = 1
    joiner: JoinerContent
    positions: dict[Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,9})$")], str]
    next_partition: Annotated[int, Field(strict=True, ge=0, lt=2**31)]


@dataclass(frozen=True)
class JoinedState:
    """Where a reader stands.

    Attributes:
        content: as JSON, for the version's content.
        tables: for files of the version: `events`, `entries`, `columns`, `samples`.
    """

    content: Mapping[str, Any]
    tables: Mapping[str, pa.Table]

    def files(self) -> dict[str, SideFile]:
        """By table the file to write; equal bytes for equal states."""
        return {name: SideFile(table) for name, table in self.tables.items()}

    @classmethod
    def of_files(cls, content: Mapping[str, Any], files: Mapping[str, memoryview]) -> JoinedState:
        """Of a version's content and the bytes of its files, by table. Raises StateError where a file is damaged."""
        return cls(content, {name: parse_side_file(raw, name) for name, raw in files.items()})


class JoinedEvents:
    """Reads partitions in turns and joins them; one thread uses it.

    Args:
        log: what is read.
        online: how events are joined.
        label: the column of the label in samples.
        batch_rows: samples of a batch; the last one has fewer, and live one that has waited for `online.batch_seconds`.
        partitions: those that are read; by default all.
        is_replay: ends with the log, and partitions are idle at their end alone. Else it waits for more, and a
            partition without entries for `online.idle_seconds` is idle.
        set_aside: receives events that give no sample, with the reason.
        columns: those of impressions that samples have; None: all.
        state: where an earlier reader stood.
        now: seconds of a clock that never goes back.

    Raises:
        StateError: the state is damaged, or of other partitions.
    """

    def __init__(
        self,
        log: EventLog,
        online: EventSamples,
        label: str,
        *,
        batch_rows: int,
        is_replay: bool,
        set_aside: SetAside,
        columns: Collection[str] | None = None,
        partitions: Collection[int] | None = None,
        state: JoinedState | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._partitions = sorted(range(log.num_partitions) if partitions is None else partitions)
        self._batch_rows = batch_rows
        self._idle_seconds = None if is_replay else online.idle_seconds
        self._now = now
        self._batch_seconds = online.batch_seconds
        self._given = now()
        self.joiner = SampleJoiner(log, online, label, self._partitions, set_aside=set_aside, columns=columns)
        self._positions: dict[int, str] = {}
        self._turn = 0
        self._pieces = [pa.table({})]
        self._num_rows = 0
        if state is not None:
            self._load(state)
        self._ahead: dict[int, deque[Entry]] = {partition: deque() for partition in self._partitions}
        self._last_seen = dict.fromkeys(self._partitions, now())

    def batches(self) -> Generator[pa.RecordBatch, None, None]:
        """Samples: the impressions' columns, the label, `correction`.

        Live, a batch without rows and columns comes where there was none for a moment: its reader may stop here.
        Between two batches, `state` is that after the first.

        Raises:
            EventsLostError: the log keeps no more what follows a position, or an impression that is open.
            EventLogError: the log cannot be read.
        """
        yield from self._full_batches()
        yield from self._closed()
        while True:
            found = yield from self._round()
            if self._idle_seconds is None:
                if found:
                    continue
                yield from self._rest()
                return
            if self._now() - self._given >= self._batch_seconds:
                if self._num_rows:
                    yield from self._rest()
                else:
                    yield self._nothing()
            if not found:
                self._log.wait(self._positions, min(_WAIT_SECONDS, self._idle_seconds, self._batch_seconds))

    def _nothing(self) -> pa.RecordBatch:
        self._given = self._now()
        return pa.record_batch([], names=[])

    def content(self) -> dict[str, Any]:
        """The small part of `state`, as JSON: cheap, whatever is open."""
        content = JoinedContent(
            joiner=self.joiner.content(),
            positions={str(partition): self._positions[partition] for partition in sorted(self._positions)},
            next_partition=self._turn,
        )
        return content.model_dump(mode="json")

    def state(self) -> JoinedState:
        """What a reader needs to go on after the last batch. It is a copy of all that is open."""
        joiner = self.joiner.save()
        tables = {"events": joiner.events, "entries": joiner.entries, "columns": joiner.columns}
        return JoinedState(self.content(), {**tables, "samples": self._waiting_samples()})

    def _round(self) -> Generator[pa.RecordBatch, None, bool]:
        """One entry of each partition that has one, from the turn on; returns whether another round may find more."""
        found = self._turn > 0  # a state was loaded within a round: what came before may have found some
        while self._turn < len(self._partitions):
            partition = self._partitions[self._turn]
            entry = self._next(partition)
            self._turn += 1
            if entry is not None:
                found = True
                self._add(self.joiner.add(entry))
                self._positions[partition] = entry.position
                yield from self._full_batches()
            elif self._is_silent(partition):
                self.joiner.clocks.set_idle(partition)
            yield from self._closed()
        self._turn = 0
        return found

    def _next(self, partition: int) -> Entry | None:
        ahead = self._ahead[partition]
        if not ahead:
            ahead.extend(self._log.read(partition, self._positions.get(partition), max_entries=_READ_AHEAD))
            if ahead:
                self._last_seen[partition] = self._now()
        return ahead.popleft() if ahead else None

    def _is_silent(self, partition: int) -> bool:
        """Whether a partition that has no entry holds the watermark no longer."""
        if self._idle_seconds is None:
            return True
        return self._now() - self._last_seen[partition] >= self._idle_seconds

    def _closed(self) -> Generator[pa.RecordBatch, None, None]:
        done = False
        while not done:
            samples, done = self.joiner.close()
            self._add(samples)
            yield from self._full_batches()

    def _add(self, samples: pa.Table) -> None:
        if samples.num_rows:
            self._pieces.append(samples)
            self._num_rows += samples.num_rows

    def _full_batches(self) -> Generator[pa.RecordBatch, None, None]:
        while self._num_rows >= self._batch_rows:
            yield self._take(self._batch_rows)

    def _rest(self) -> Generator[pa.RecordBatch, None, None]:
        if self._num_rows:
            yield self._take(self._num_rows)

    def _take(self, rows: int) -> pa.RecordBatch:
        self._given = self._now()
        samples = self._waiting_samples()
        self._pieces = [samples.slice(rows)]
        self._num_rows -= rows
        return samples.slice(0, rows).combine_chunks().to_batches()[0]

    def _waiting_samples(self) -> pa.Table:
        """Samples that are joined and not yet given. Entries may give one each: they are put together once a batch."""
        if len(self._pieces) > 1:
            self._pieces = [joined(self._pieces)]
        return self._pieces[0]

    def _load(self, state: JoinedState) -> None:
        missing = {"events", "entries", "columns", "samples"} - set(state.tables)
        if missing:
            raise StateError(f"the state has no table '{min(missing)}'")
        try:
            content = JoinedContent.model_validate(state.content)
        except ValidationError as error:
            raise StateError(f"this build cannot read the state of joined events: {error_lines(error)[0]}") from None
        tables = state.tables
        self.joiner.load(JoinerState(content.joiner, tables["events"], tables["entries"], tables["columns"]))
        positions = {int(partition): position for partition, position in content.positions.items()}
        unknown = set(positions) - set(self._partitions)
        if unknown:
            raise StateError(f"the state has a position of partition {min(unknown)}, which is not read")
        if content.next_partition > len(self._partitions):
            raise StateError(f"the state is before the turn of partition {content.next_partition}, which is not read")
        self._positions = positions
        self._turn = content.next_partition
        self._pieces = [tables["samples"]]
        self._num_rows = tables["samples"].num_rows

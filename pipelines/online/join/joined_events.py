"""`JoinedEvents`: samples of an event log in batches, with the state that goes on after each of them.

    partitions p with p % N = r -> OwnEvents of rank r -> samples, in batches of `batch_rows`

All ranks give a batch at the same moment, perhaps without rows. A state holds positions, what joiners know, whose turn
it is, and samples that are joined but not yet given. So what follows a batch is the same whether the process went on or
began again with the batch's state: bit for bit in a replay on as many ranks, but for the order in which live partitions
have news.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Collection, Generator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, Any, Literal

import pyarrow as pa
from pydantic import Field, ValidationError

from embtables.errors import StateError
from embtables.events.protocol import EventLog
from embtables.pipelines.online.join.joiner import SetAside
from embtables.pipelines.online.join.own_events import IsNew, OwnEvents, PartitionContent
from embtables.schema import EventSamples, Model, error_lines
from embtables.shard.world import SingleRank, World
from embtables.state.format.side_file import SideFile, parse_side_file

_WAIT_SECONDS = 0.5
_WAIT_TOGETHER_SECONDS = 0.1  # of several ranks: one that has news waits for the others
_BUSY_SECONDS = 0.25  # how long a rank works before it tells the others how far it is


class JoinedContent(Model):
    """The small part of a state, of all ranks.

    Attributes:
        partitions: by partition.
    """

    format: Literal[2] = 2
    partitions: dict[Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,9})$")], PartitionContent]


@dataclass(frozen=True)
class JoinedState:
    """Where a reader stands.

    Attributes:
        content: as JSON, for the version's content; of all ranks.
        tables: of this rank's partitions, for files of the version; see OwnEvents.tables.
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


class _At(IntEnum):
    """How far a rank is, as it tells the others."""

    NOTHING_NEW, BUSY, DUE, FULL, ENDED = range(5)


class JoinedEvents:
    """Joins an event log on all ranks; one thread of each uses it.

    Args:
        log: what is read.
        online: how events are joined.
        label: the column of the label in samples.
        batch_rows: samples of this rank in a batch. The last one has fewer, and live one that has waited for
            `online.batch_seconds`, or comes with the batch of a rank that has more.
        is_replay: ends with the log, and partitions are idle at their end alone. Else it waits for more, and a
            partition without entries for `online.idle_seconds` is idle.
        set_aside: receives events that give no sample, with the reason.
        columns: those of impressions that samples have; None: all.
        is_new: which of some samples are given; the others are counted as `before_begin`. None: all are.
        world: the ranks; rank r of N reads the partitions p with p % N = r, with a watermark of its own.
        state: where earlier readers stood, any number of them, with the tables of this rank's partitions at least.
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
        world: World | None = None,
        is_new: IsNew | None = None,
        state: JoinedState | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._world = SingleRank() if world is None else world
        self._batch_rows = batch_rows
        self._is_replay = is_replay
        self._now = now
        self._batch_seconds = online.batch_seconds
        wait = _WAIT_SECONDS if self._world.size == 1 else _WAIT_TOGETHER_SECONDS
        self._wait_seconds = min(wait, online.idle_seconds, online.batch_seconds)
        self._given = now()
        self._own = OwnEvents(
            log,
            online,
            label,
            partitions_of(log, self._world),
            idle_seconds=None if is_replay else online.idle_seconds,
            set_aside=set_aside,
            columns=columns,
            is_new=is_new,
            now=now,
        )
        if state is not None:
            self._load(state)
        self._content: dict[str, Any] | None = None if state is None else dict(state.content)

    @property
    def counts(self) -> Counter[str]:
        """Events by what became of them, of all ranks, as of the last batch. Of the positives, `late_positives /
        (positives + late_positives)` is the share that comes late.
        """
        found: Counter[str] = Counter()
        for of in self.content()["partitions"].values():
            found.update(of["joiner"]["counts"])
        return found

    @property
    def reached_us(self) -> int | None:
        """The greatest watermark of a rank as of the last batch, microseconds; the same at every rank."""
        partitions = self.content()["partitions"].values()
        return max((of["watermark"] for of in partitions if of["watermark"] is not None), default=None)

    @property
    def open_keys(self) -> int:
        """Impressions of this rank that are open or may be corrected or repeated, and actions that wait for theirs."""
        return self._own.open_keys

    def batches(self) -> Generator[pa.RecordBatch, None, None]:
        """Samples: the impressions' columns, the label, `correction`. As many batches at every rank.

        A batch without rows and columns comes where there was none at this rank, or live for a moment at all of them:
        its reader may stop here. Between two batches, `state` is that after the first.

        Raises:
            EventsLostError: the log keeps no more what follows a position, or an impression that is open.
            EventLogError: the log cannot be read.
        """
        if self._content is None:
            self._content = self._gathered()
        while True:
            own = self._work()
            ranks = self._ranks(own)
            if all(each == _At.ENDED for each in ranks):
                break
            if self._is_time(ranks):
                yield self._take()
            elif own is _At.NOTHING_NEW and _At.BUSY not in ranks and self._own.partitions:
                self._log.wait(self._own.positions, self._wait_seconds, partitions=self._own.partitions)
        before = self._content
        last = self._take()
        if self._content != before:  # what was read last may have given no sample, and yet it was read
            yield last

    def content(self) -> dict[str, Any]:
        """The small part of `state`, as JSON; the same at every rank."""
        return _as_json({}) if self._content is None else self._content

    def state(self) -> JoinedState:
        """What readers need to go on after the last batch. It is a copy of all that is open at this rank."""
        return JoinedState(self.content(), self._own.tables())

    def _work(self) -> _At:
        """Works until a batch is full, there is nothing to be read, or for a while; returns where that has led to."""
        until = self._now() + _BUSY_SECONDS
        while self._own.num_rows < self._batch_rows:
            if not self._own.work():
                if self._is_replay:
                    return _At.ENDED if not self._own.num_rows else _At.DUE
                break
            if self._now() >= until:
                return _At.DUE if self._is_due() else _At.BUSY
        else:
            return _At.FULL
        return _At.DUE if self._is_due() else _At.NOTHING_NEW

    def _is_due(self) -> bool:
        return not self._is_replay and self._now() - self._given >= self._batch_seconds

    def _is_time(self, ranks: list[_At]) -> bool:
        """Whether all ranks give a batch. In a replay that depends on the log alone, and not on who is faster."""
        if self._is_replay:
            return all(each in (_At.FULL, _At.DUE, _At.ENDED) for each in ranks)
        return any(each in (_At.FULL, _At.DUE) for each in ranks)

    def _ranks(self, own: _At) -> list[_At]:
        if self._world.size == 1:
            return [own]
        return [_At(each[0]) for each in self._world.gather_bytes(bytes([own]))]

    def _take(self) -> pa.RecordBatch:
        self._given = self._now()
        taken = self._own.take(self._batch_rows)
        self._content = self._gathered()
        return taken

    def _gathered(self) -> dict[str, Any]:
        own = {str(partition): of.model_dump(mode="json") for partition, of in self._own.content().items()}
        if self._world.size > 1:
            every = [json.loads(each) for each in self._world.gather_bytes(json.dumps(own).encode())]
            own = {partition: of for rank in every for partition, of in rank.items()}
        return _as_json({partition: own[partition] for partition in sorted(own, key=int)})

    def _load(self, state: JoinedState) -> None:
        try:
            content = JoinedContent.model_validate(state.content)
        except ValidationError as error:
            raise StateError(f"this build cannot read the state of joined events: {error_lines(error)[0]}") from None
        found = {int(partition): of for partition, of in content.partitions.items()}
        unknown = [partition for partition in found if partition >= self._log.num_partitions]
        if unknown:
            raise StateError(f"the state is of partition {min(unknown)}, which the log does not have")
        self._own.load(found, state.tables)


def _as_json(partitions: Mapping[str, Any]) -> dict[str, Any]:
    """A JoinedContent."""
    return {"format": 2, "partitions": partitions}


def partitions_of(log: EventLog, world: World) -> range:
    """The partitions that a rank reads."""
    return range(world.rank, log.num_partitions, world.size)

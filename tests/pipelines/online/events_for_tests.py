"""A log in memory, events that are short to write, and an oracle of the joiner: one dictionary over the whole list."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from embtables.errors import EventsLostError
from embtables.events.protocol import Entry, Positions
from embtables.pipelines.online.join.joined_events import JoinedEvents, JoinedState
from embtables.schema import EventSamples, validate

SECOND = 1_000_000
BEGIN = 1_700_000_000 * SECOND


class LogInMemory:
    """An `EventLog` whose entries are lists; positions are numbers as text."""

    def __init__(self, num_partitions: int = 1) -> None:
        self.num_partitions = num_partitions
        self.entries: list[list[pa.RecordBatch]] = [[] for _ in range(num_partitions)]
        self.gone: set[tuple[int, int]] = set()
        self.fetched: list[tuple[int, str]] = []

    def append(self, partition: int, events: pa.RecordBatch) -> str:
        self.entries[partition].append(events)
        return str(len(self.entries[partition]) - 1)

    def read(self, partition: int, after: str | None, *, max_entries: int = 1000) -> list[Entry]:
        first = 0 if after is None else int(after) + 1
        of = self.entries[partition][first : first + max_entries]
        return [Entry(partition, str(first + place), events) for place, events in enumerate(of)]

    def fetch(self, partition: int, position: str) -> pa.RecordBatch:
        if (partition, int(position)) in self.gone:
            raise EventsLostError("is kept no more", partition=partition)
        self.fetched.append((partition, position))
        return self.entries[partition][int(position)]

    def last(self, partition: int) -> str | None:
        return str(len(self.entries[partition]) - 1) if self.entries[partition] else None

    def wait(self, after: Positions, timeout_seconds: float, *, partitions: Collection[int] | None = None) -> bool:
        return any(self.read(p, after.get(p)) for p in (partitions or range(self.num_partitions)))

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class Event:
    """`at`: seconds after BEGIN."""

    kind: str
    request: str | None
    item: str | None
    at: float
    values: Mapping[str, Any] = field(default_factory=dict)


def imp(request: str, item: str, at: float, **values: Any) -> Event:
    return Event("impression", request, item, at, values)


def click(request: str, item: str, at: float, **values: Any) -> Event:
    return Event("click", request, item, at, values)


def batch(events: Sequence[Event]) -> pa.RecordBatch:
    """An entry; a column that only some events have is null in the others."""
    names = dict.fromkeys(name for event in events for name in event.values)
    columns: dict[str, pa.Array] = {
        "event_id": pa.array([f"{e.kind}-{e.request}-{e.item}-{e.at}" for e in events]),
        "kind": pa.array([e.kind for e in events]),
        "event_time": pa.array([BEGIN + round(e.at * SECOND) for e in events], pa.timestamp("us")),
        "request_id": pa.array([e.request for e in events], pa.string()),
        "item": pa.array([e.item for e in events], pa.string()),
        **{name: pa.array([e.values.get(name) for e in events]) for name in names},
    }
    return pa.record_batch(columns)


def options(**changes: Any) -> EventSamples:
    given = {"log": "folder:///log", "item": "item", "window_seconds": 100, "max_skew_seconds": 5} | changes
    return validate(EventSamples, given)


@dataclass
class Read:
    """What a reader gave.

    Attributes:
        samples: (request, item, label, correction), in order.
        states: after each batch.
    """

    reader: JoinedEvents
    batches: list[pa.RecordBatch]
    states: list[JoinedState]
    set_aside: Counter[str]

    @property
    def samples(self) -> list[tuple[str, str, float, bool]]:
        return [
            (row["request_id"], row["item"], row["click"], row["correction"])
            for each in self.batches
            for row in each.to_pylist()
        ]


def read_all(log: LogInMemory, online: EventSamples, *, batch_rows: int = 4, state: JoinedState | None = None) -> Read:
    """A replay to the end."""
    set_aside: Counter[str] = Counter()

    def note(reason: str, events: pa.RecordBatch) -> None:
        set_aside[reason] += events.num_rows

    reader = JoinedEvents(log, online, "click", batch_rows=batch_rows, is_replay=True, set_aside=note, state=state)
    found = Read(reader, [], [], set_aside)
    for each in reader.batches():
        found.batches.append(each)
        found.states.append(reader.state())
    return found


def passed(log: LogInMemory, seconds: float) -> None:
    """An event that nothing is joined to moves the clock of every partition to this time."""
    for partition in range(log.num_partitions):
        log.append(partition, batch([Event("tick", None, None, seconds)]))

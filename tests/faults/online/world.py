"""Two minutes of a small world, its events, and what has to become of them, by a join in plain Python.

Each impression has a number of its own, and a row of the table `shown`: how often that row was trained on is how often
the impression was used.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from embtables.events import EventLog
from embtables.events.partitions import by_partition
from tests.faults.run_tables import arrays_of

WINDOW, LATE, SHOWN = 5, 20, 4
SECONDS = 120.0
BATCH = 1.5  # seconds that a click may come after impressions that are later: a window closed by them is no surprise
SECOND_US = 1_000_000
BEGIN_US = 1_700_000_000 * SECOND_US
CONFIG = """
name: world
tables:
  - &rows {name: user, kind: collisionless, dim: 4, optimizer: {kind: adagrad, learning_rate: 0.1}}
  - {<<: *rows, name: item}
  - {<<: *rows, name: shown}
features: [{name: user, table: user}, {name: item, table: item}, {name: shown, table: shown, encoder: {kind: identity}}]
labels: [{column: click}]
event_time: {column: event_time}
data: {path: before.parquet}
model: {kind: fm}
train: {batch_size: 32, threads: 1, runs_dir: runs}
publish: {keep: 3}
online:
  sync_seconds: 4
  report_seconds: 60
  events:
    {log: "LOG", item: item, window_seconds: 5, late_window_seconds: 20, idle_seconds: 600, batch_seconds: 0.05}
"""


@dataclass(frozen=True)
class Event:
    """An impression, or a click; `at` is seconds of the world."""

    event_id: str
    kind: str
    at: float
    request: str
    values: dict[str, int] = field(hash=False)


@dataclass(frozen=True)
class Visit:
    """What a request shows, and the clicks on it."""

    impressions: list[Event]
    clicks: list[Event]


def visits(seed: int, per_second: float, seconds: float = SECONDS) -> list[Visit]:
    """Visits in their order: clicks in the window, late, too late, twice, and of requests that nobody has seen."""
    rng, found = random.Random(seed), list[Visit]()
    for number in range(int(seconds * per_second)):
        at, request, user = number / per_second, f"r{number}", rng.randrange(50)
        items = rng.sample(range(200), SHOWN)
        rows = [{"user": user, "item": item, "shown": SHOWN * number + n} for n, item in enumerate(items)]
        shown = [Event(f"{request}/{n}", "impression", at, request, row) for n, row in enumerate(rows)]
        what = rng.choices(["none", "in time", "late", "too late", "twice", "unseen"], [50, 25, 12, 4, 5, 4])[0]
        item = rng.choice(items)
        delays = {
            "none": [],
            "in time": [rng.uniform(0.2, WINDOW - BATCH)],
            "late": [rng.uniform(WINDOW + 0.1, WINDOW + LATE - BATCH)],
            "too late": [rng.uniform(WINDOW + LATE + 0.1, WINDOW + LATE + 9)],
            "twice": [rng.uniform(0.2, 2), rng.uniform(2, WINDOW + LATE - BATCH)],
            "unseen": [rng.uniform(0.2, 2)],
        }[what]
        of = f"unseen-{number}" if what == "unseen" else request
        clicks = [Event(f"{request}-c{n}", "click", at + d, of, {"item": item}) for n, d in enumerate(delays)]
        found.append(Visit(shown, clicks))
    return found


def in_order(made: Sequence[Visit]) -> list[Event]:
    """All events by time."""
    return sorted((e for visit in made for e in (*visit.impressions, *visit.clicks)), key=lambda event: event.at)


def batch_of(events: Sequence[Event], begin_us: int) -> pa.RecordBatch:
    """Events of one kind."""
    return pa.record_batch(
        {
            "event_id": [e.event_id for e in events],
            "kind": [e.kind for e in events],
            "event_time": pa.array([begin_us + round(e.at * SECOND_US) for e in events], pa.timestamp("us")),
            "request_id": [e.request for e in events],
            **{name: pa.array([e.values[name] for e in events], pa.int64()) for name in events[0].values},
        }
    )


def append(log: EventLog, events: Sequence[Event], begin_us: int = BEGIN_US) -> None:
    """Events in their order: of each second the impressions, then the clicks."""
    seconds: dict[tuple[int, bool], list[Event]] = {}
    for event in events:
        seconds.setdefault((int(event.at), event.kind == "click"), []).append(event)
    for _, of in sorted(seconds.items()):
        for partition, part in by_partition(batch_of(of, begin_us), log.num_partitions).items():
            log.append(partition, part)


def end(log: EventLog, begin_us: int = BEGIN_US) -> None:
    """Time passes all windows, in every partition."""
    for partition in range(log.num_partitions):
        tick = Event(f"end-{partition}", "tick", 10 * SECONDS, "nobody", {"item": 0})
        log.append(partition, batch_of([tick], begin_us))


def prepare(folder: Path, uri: str) -> Path:
    """The configuration; a log of the days before, which gives nothing to fit."""
    columns = {name: pa.array([0, 1], pa.int64()) for name in ("user", "item", "shown", "click", "price")}
    times = pa.array([0, 1], pa.timestamp("us"))
    pq.write_table(pa.table({**columns, "event_time": times}), folder / "before.parquet")
    text = CONFIG.replace("LOG", uri).replace("before.parquet", f"{folder}/before.parquet")
    (folder / "world.yaml").write_text(text.replace("runs_dir: runs", f"runs_dir: {folder}/runs"))
    return folder / "world.yaml"


@dataclass
class Joined:
    """What has to become of a log's events.

    Attributes:
        used: by number of an impression how many samples it gives.
        set_aside: ids of the events that give none.
    """

    counts: Counter[str]
    used: dict[int, int]
    set_aside: set[str]
    ids: set[str]


def join(log: EventLog) -> Joined:
    """Each event once, by its id; an impression with the first of the clicks on it."""
    events: dict[str, dict[str, Any]] = {}
    for partition in range(log.num_partitions):
        after = None
        while entries := log.read(partition, after):
            after = entries[-1].position
            for row in (row for entry in entries for row in entry.events.to_pylist()):
                events.setdefault(row["event_id"], row)
    of = {kind: [e for e in events.values() if e["kind"] == kind] for kind in ("impression", "click")}
    first: dict[tuple[str, int], dict[str, Any]] = {}
    for click in sorted(of["click"], key=lambda click: click["event_time"]):
        first.setdefault((click["request_id"], click["item"]), click)
    counts: Counter[str] = Counter()
    used: dict[int, int] = {}
    aside: set[str] = set()
    for impression in of["impression"]:
        click = first.pop((impression["request_id"], impression["item"]), None)
        delay = None if click is None else (click["event_time"] - impression["event_time"]).total_seconds()
        is_late = delay is not None and WINDOW < delay <= WINDOW + LATE
        counts["positives" if delay is not None and delay <= WINDOW else "negatives"] += 1
        counts["late_positives"] += is_late
        used[impression["shown"]] = 1 + is_late
        if click is not None and delay is not None and delay > WINDOW + LATE:
            aside.add(click["event_id"])  # too late, or an orphan where its impression is forgotten already
    aside |= {click["event_id"] for click in first.values()}
    return Joined(counts, used, aside, set(events))


def used_by(run: Path) -> dict[int, int]:
    """By number of an impression how often its row was trained on."""
    arrays = arrays_of(run)
    return dict(zip(arrays["shown/keys"].tolist(), arrays["shown/counts"].tolist(), strict=True))

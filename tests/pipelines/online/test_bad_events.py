"""Bad events while `embtables online` goes on: each is set aside with its reason, counted, and named in the figures."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from embtables.events import EventLog, open_log
from embtables.events.columns import FORMAT_KEY
from embtables.events.dead_letters import DEAD_REASON, DeadLetters
from embtables.pipelines.config import load_config
from embtables.pipelines.online.run_online import DEAD_LETTERS, online, resume
from embtables.pipelines.run_dir import RunDir
from tests.contents import same
from tests.faults.online import world
from tests.faults.online.world import SECOND_US, Event
from tests.faults.run_tables import arrays_of

DAY = 86_400.0
EVENTS = world.in_order(world.visits(7, 5.0, 40.0))


@pytest.fixture
def begin_us() -> int:
    """Yesterday: events that are replayed from dead letters must not be old."""
    return (time.time_ns() // 1000) // SECOND_US * SECOND_US - int(DAY) * SECOND_US


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return f"folder://{tmp_path}/events"


@pytest.fixture
def log(uri: str) -> Iterator[EventLog]:
    with closing(open_log(f"{uri}?partitions=2")) as log:
        yield log


def impression(name: str, at: float, **values: int) -> Event:
    return Event(name, "impression", at, name, {"user": 1, "item": 1, "shown": 1_000_000, **values})


def append_with(log: EventLog, begin_us: int, bad: Mapping[float, pa.RecordBatch]) -> None:
    """The world, and an entry of bad events at each of these seconds, in either partition."""
    places = [0.0, *bad, 1000.0]
    for begin, until in pairwise(places):
        if begin in bad:
            log.append(int(begin) % 2, bad[begin])
        world.append(log, [event for event in EVENTS if begin <= event.at < until], begin_us)
    world.end(log, begin_us)


def train(folder: Path, uri: str, change: Callable[[str], str] = str) -> tuple[RunDir, dict[str, Any]]:
    """A run that drains the log."""
    folder.mkdir()
    file = world.prepare(folder, uri)
    file.write_text(change(file.read_text()))
    report = online(load_config(file), "events", drains=True, shown=False)
    return RunDir.open(Path(report["run_dir"])), report


def reasons(run: RunDir, column: str = "event_id") -> dict[str, set[Any]]:
    """By reason the ids of what was set aside, or another column."""
    found: dict[str, set[Any]] = {}
    with closing(DeadLetters(run.checkpoints.parent / DEAD_LETTERS)) as letters:
        for part in letters.pending():
            for row in part.to_pylist():
                found.setdefault(row[DEAD_REASON].partition(":")[0], set()).add(row[column])
    return found


def figures(run: RunDir, name: str) -> list[dict[str, Any]]:
    lines = (run.checkpoints.parent / "metrics.jsonl").read_text().splitlines()
    return [line[name] for line in map(json.loads, lines) if name in line]


def bad_entries(begin_us: int) -> dict[float, pa.RecordBatch]:
    """By second an entry; the ids say what is wrong."""

    def entry(events: Sequence[Event]) -> pa.RecordBatch:
        return world.batch_of(events, begin_us)

    unknown = entry([impression("format_unknown", 10.0)])
    nobody = entry([impression("request_missing", 15.0)])
    place = nobody.schema.get_field_index("request_id")
    return {
        10.0: unknown.replace_schema_metadata({FORMAT_KEY: b"7"}),
        15.0: nobody.set_column(place, "request_id", pa.nulls(1, pa.string())),
        20.0: entry([Event("orphans", "click", 20.0, "nobody", {"item": 1})]),
        25.0: entry([impression("too_far_ahead", 25.0 + 90 * DAY)]),
        30.0: entry([impression("too_old", 30.0 - 3 * 365 * DAY)]),
        35.0: entry([replace(impression("columns_missing", 35.0), values={"user": 1})]),
    }


def test_each_is_set_aside_with_its_reason_and_the_others_are_used(
    log: EventLog, uri: str, tmp_path: Path, begin_us: int
) -> None:
    bad = bad_entries(begin_us)
    append_with(log, begin_us, bad)
    run, report = train(tmp_path / "run", uri)
    found = reasons(run)
    names = [entry["event_id"][0].as_py() for entry in bad.values()]
    assert all(name in found[name] for name in names)
    counts = report["events"]
    assert {name: counts[name] for name in names} == {name: len(found[name]) for name in names}
    assert figures(run, "events")[-1] == {name: number for name, number in counts.items() if number}
    used = world.used_by(run.path)
    assert used == {event.values["shown"]: used[event.values["shown"]] for event in EVENTS if "shown" in event.values}
    assert report["rows"] == sum(used.values())


def test_a_value_without_meaning_is_counted_once_however_many_intervals_there_are(
    log: EventLog, uri: str, tmp_path: Path, begin_us: int
) -> None:
    def priced(events: pa.RecordBatch, price: float) -> pa.RecordBatch:
        return events.append_column("price", pa.array([price] * events.num_rows))

    def with_price(text: str) -> str:
        return text.replace("labels:", "dense: [{column: price, fill_null: 0.0}]\nlabels:")

    nan = world.batch_of([impression(f"nan-{n}", 3.0, item=n) for n in range(3)], begin_us)
    append_with(log, begin_us, {3.0: priced(nan, float("nan"))})
    run, report = train(tmp_path / "run", uri, with_price)
    assert report["intervals"] > 5
    assert report["quarantined_rows"] == 3
    assert [sum(found.values()) for found in figures(run, "quarantined")] == [3]
    assert reasons(run, "item")["price"] == {0, 1, 2}  # samples have the columns that the model reads
    assert 1_000_000 not in world.used_by(run.path)


@pytest.mark.parametrize("days", [90, -90])
def test_a_jump_of_one_event_closes_no_windows_and_expires_no_rows(
    log: EventLog, uri: str, tmp_path: Path, begin_us: int, days: int
) -> None:
    def expiring(text: str) -> str:
        return text.replace("kind: collisionless,", "kind: collisionless, ttl_seconds: 300,")

    stray = {
        12.0: impression("stray", 12.0 + days * DAY),
        20.0: Event("stray-click", "click", 20.0 + days * DAY, "r90", {"item": 3}),
    }
    append_with(log, begin_us, {at: world.batch_of([event], begin_us) for at, event in stray.items()})
    run, report = train(tmp_path / "run", uri, expiring)
    other = f"folder://{tmp_path}/without"
    with closing(open_log(f"{other}?partitions=2")) as without:
        # Entries in their places, which make nothing of themselves: partitions are read in turns.
        tick = world.batch_of([Event("tick", "tick", 1.0, "nobody", {"item": 0})], begin_us)
        append_with(without, begin_us, dict.fromkeys(stray, tick))
    quiet, expected = train(tmp_path / "quiet", other, expiring)
    samples = ("positives", "negatives", "late_positives")
    assert {name: report["events"][name] for name in samples} == {name: expected["events"][name] for name in samples}
    assert {"stray", "stray-click"} <= set().union(*reasons(run).values())
    assert same(arrays_of(run.path), arrays_of(quiet.path))


def test_dead_letters_are_replayed_into_the_log_and_used_by_the_run(
    log: EventLog,
    uri: str,
    tmp_path: Path,
    begin_us: int,
    command: Callable[..., tuple[int, str, str]],
) -> None:
    early = Event("early", "click", 10.0, "delayed", {"item": 1})
    world.append(log, [event for event in EVENTS if event.at < 20.0], begin_us)
    world.append(log, [early], begin_us)
    world.append(log, [event for event in EVENTS if 20.0 <= event.at < 25.0], begin_us)
    run, first = train(tmp_path / "run", uri)
    assert "early" in reasons(run)["orphans"]
    # What it belongs to comes at last, in the partition of its click.
    world.append(log, [replace(impression("delayed", 9.0), request="delayed")], begin_us)
    letters = run.checkpoints.parent / DEAD_LETTERS
    before = Counter({reason: len(names) for reason, names in reasons(run).items()})
    status, out, _ = command("events", "dead-letters", letters, "--replay", uri, "--json")
    assert (status, json.loads(out)) == (0, {"appended": sum(before.values()), "refused": {}})
    assert reasons(run) == {}
    world.append(log, [event for event in EVENTS if event.at >= 25.0], begin_us)
    world.end(log, begin_us)
    report = resume(run, drains=True, shown=False)
    used, joined = world.used_by(run.path), world.join(log)
    # The impression came after its window, so its click corrects a negative.
    assert used == joined.used | {1_000_000: 2}
    assert report["rows"] == sum(used.values()) > first["rows"]
    # Those that nothing was found for are dead letters again.
    found = set().union(*reasons(run).values())
    assert found == joined.set_aside

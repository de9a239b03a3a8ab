"""Events that were refused are kept with their reasons, and come back when they are replayed."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import xxhash

from embtables.errors import DataError
from embtables.events import open_log
from embtables.events.check import check_events
from embtables.events.columns import FORMAT_KEY
from embtables.events.dead_letters import DEAD_REASON, DeadLetters
from embtables.events.partitions import by_partition, partitions_of
from tests.contracts.event_log import read_all
from tests.events.events_for_tests import events

Command = Callable[..., tuple[int, str, str]]
DAY = 86_400 * 10**6
REASONS = {"time_behind": 2, "empty_event_id": 1, "time_ahead": 1}


def late(start: int, rows: int = 3) -> pa.RecordBatch:
    """Events of 1970, which are years old."""
    return events(start, rows)


def ids(batches: Any) -> list[str]:
    return [each for batch in batches for each in batch["event_id"].to_pylist()]


def test_what_was_refused_is_listed_with_its_reason(tmp_path: Path) -> None:
    with closing(DeadLetters(tmp_path / "dead")) as letters:
        for given in (late(0), events(3).drop_columns(["kind"]), events(6).append_column("kind", events(6)["kind"])):
            checked = check_events(given, 500 * DAY)
            letters.add(checked.bad, checked.reasons)
        letters.add(events(9, 0), [])
        assert dict(letters.counts) == {"time_behind": 3, "missing_column": 3, "repeated_column": 3}
        with pytest.raises(DataError, match="2 reasons for 3 events"):
            letters.add(events(0), ["a", "b"])
    with closing(DeadLetters(tmp_path / "dead")) as letters:
        pending = list(letters.pending())
        assert ids(pending) == [f"e{i}" for i in range(9)]
        assert [reason for batch in pending for reason in batch[DEAD_REASON].to_pylist()] == (
            ["time_behind"] * 3 + ["missing_column"] * 3 + ["repeated_column"] * 3
        )


def test_a_replay_appends_what_is_good_now_once_and_keeps_the_rest(tmp_path: Path) -> None:
    with closing(DeadLetters(tmp_path / "dead")) as letters, closing(open_log(f"folder://{tmp_path}/log")) as log:
        letters.add(late(0), ["time_behind"] * 3)
        letters.add(events(3).replace_schema_metadata({FORMAT_KEY: b"9"}), ["unknown_format"] * 3)
        done = letters.replay(log, now=10)
        assert (done.appended, dict(done.refused)) == (3, {"unknown_format": 3})
        (entry,) = read_all(log, 0)
        assert entry.events.to_pydict() == late(0).to_pydict()
        assert ids(letters.pending()) == ["e3", "e4", "e5"]
        again = letters.replay(log, now=10)
        assert (again.appended, dict(again.refused)) == (0, {"unknown_format": 3})
        assert len(read_all(log, 0)) == 1


def test_a_replay_that_stops_half_way_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(DeadLetters(tmp_path / "dead")) as letters, closing(open_log(f"folder://{tmp_path}/log")) as log:
        for i in range(4):
            letters.add(late(i, 1), ["time_behind"])
        append, calls = log.append, iter(range(100))

        def stops(partition: int, batch: pa.RecordBatch) -> str:
            if next(calls) == 2:
                raise KeyboardInterrupt
            return append(partition, batch)

        with monkeypatch.context() as patch:
            patch.setattr(log, "append", stops)
            with pytest.raises(KeyboardInterrupt):
                letters.replay(log, now=10)
        assert ids(letters.pending()) == ["e2", "e3"]
        letters.replay(log, now=10)
        assert ids(entry.events for entry in read_all(log, 0)) == ["e0", "e1", "e2", "e3"]
        assert ids(letters.pending()) == []


def test_rows_go_to_the_partition_of_their_request(tmp_path: Path) -> None:
    given = events(0, 500)
    parts = by_partition(given, 7)
    for partition, part in parts.items():
        for row in part.to_pylist():
            key = row["event_id"] if row["request_id"] is None else row["request_id"]
            assert xxhash.xxh3_64_intdigest(key.encode()) % 7 == partition
    assert sorted(ids(parts.values())) == sorted(ids([given]))
    for part in parts.values():
        assert ids([part]) == sorted(ids([part]), key=lambda each: int(each[1:]))
    assert by_partition(given, 1)[0] is given
    assert np.array_equal(partitions_of(given.slice(100, 50), 7), partitions_of(given, 7)[100:150])
    with pytest.raises(DataError, match="no such column"):
        partitions_of(given.drop_columns(["request_id"]), 7)


def test_tail_prints_the_events_of_a_log(tmp_path: Path, command: Command) -> None:
    uri = f"folder://{tmp_path}/log"
    with closing(open_log(f"{uri}?partitions=2")) as log:
        log.append(0, events(0, 2, price=pa.array([1.5, float("nan")])))
        position = log.append(1, events(2, 1))
    status, out, _ = command("events", "tail", uri)
    lines = [json.loads(line) for line in out.splitlines()]
    assert status == 0
    assert [line["event_id"] for line in lines] == ["e0", "e1", "e2"]
    assert [line.get("price") for line in lines] == [1.5, None, None]
    assert (lines[2]["partition"], lines[2]["position"]) == (1, position)
    assert lines[1]["event_time"] == "1970-01-01T00:00:00.000001"
    _, out, _ = command("events", "tail", uri, "--max-events", 1, "--partition", 1)
    assert json.loads(out)["event_id"] == "e2"
    assert command("events", "tail", f"{uri}?partions=2")[0] == 2
    assert command("events", "tail", uri, "--partition", 7)[0] == 1


@pytest.mark.parametrize("partition", [(), ("--partition", "1")])
def test_tail_follows_what_is_appended_from_then_on(
    tmp_path: Path, command: Command, partition: tuple[str, ...]
) -> None:
    uri = f"folder://{tmp_path}/log"
    with closing(open_log(f"{uri}?partitions=2")) as log:
        log.append(1, events(0))
        seen = threading.Event()

        def append() -> None:
            number = 10
            while not seen.wait(0.01):
                log.append(0, events(number, 1))
                log.append(1, events(number + 1, 1))
                number += 2

        thread = threading.Thread(target=append)
        thread.start()
        try:
            status, out, _ = command("events", "tail", uri, "--follow", "--max-events", 4, *partition)
        finally:
            seen.set()
            thread.join()
    numbers = [int(json.loads(line)["event_id"][1:]) for line in out.splitlines()]
    assert status == 0
    assert len(numbers) == 4
    assert min(numbers) >= 10
    assert not partition or all(number % 2 for number in numbers)


def test_dead_letters_are_listed_and_replayed_by_the_command(tmp_path: Path, command: Command) -> None:
    dead = tmp_path / "dead"
    with closing(DeadLetters(dead)) as letters:
        letters.add(events(0, 2), ["time_behind"] * 2)
        bad = events(2, 1).set_column(0, "event_id", pa.array([""]))
        letters.add(bad, ["empty_event_id"])
        wild = events(3, 1).set_column(2, "event_time", pa.array([2**62], pa.timestamp("us")))
        letters.add(wild.append_column("raw", pa.array([b"\xff"])), ["time_ahead"])
    status, out, _ = command("events", "dead-letters", dead, "--json")
    assert (status, json.loads(out)) == (0, {"pending": 4, "reasons": REASONS})
    _, out, err = command("events", "dead-letters", dead)
    assert [json.loads(line)[DEAD_REASON] for line in out.splitlines()] == list(Counter(REASONS).elements())
    assert "pending: 4" in err
    uri = f"folder://{tmp_path}/log"
    status, out, _ = command("events", "dead-letters", dead, "--replay", uri, "--json")
    assert (status, json.loads(out)) == (0, {"appended": 0, "refused": REASONS})
    status, _, err = command("events", "dead-letters", tmp_path / "none")
    assert (status, (tmp_path / "none").exists()) == (2, False)
    assert "no refused events" in err

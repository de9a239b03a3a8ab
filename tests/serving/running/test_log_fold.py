"""The fold of an event log: each event once, whatever is in the log, and over restarts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embtables.errors import EventLogError, StateError
from embtables.events import EventLog, open_log
from embtables.running import read_checkpoint
from embtables.schema import Running
from embtables.serving.running.log_fold import LogFold

SECOND = 1_000_000
RUNNING = Running.model_validate(
    {
        "features": [
            {"name": "clicks", "count": "events", "by": "user"},
            {"name": "cheap", "count": "events", "by": "user", "where": ["price < 5"]},
            {"name": "paid", "last_value": "price", "by": "item"},
            {"name": "items", "last_n": {"column": "item", "n": 3}, "by": "user"},
        ]
    }
)


def batch(rows: list[dict[str, Any]], **types: pa.DataType) -> pa.RecordBatch:
    """Events; by default clicks of item `a` at second 1."""
    rows = [{"kind": "click", "event_time": SECOND, "item": "a", "request_id": None} | row for row in rows]
    kinds = {"event_id": pa.string(), "kind": pa.string(), "event_time": pa.timestamp("us"), "request_id": pa.string()}
    kinds |= {"user": pa.int64(), "item": pa.string(), "price": pa.float64()} | types
    names = [name for name in kinds if any(name in row for row in rows)]
    return pa.record_batch([pa.array([row.get(n) for row in rows], kinds[n]) for n in names], names)


def answers(fold: LogFold, users: Any, items: Any = None, at: int = 1000) -> dict[str, list[Any]]:
    asked = pa.table(
        {
            "user": users,
            "item": ["a"] * len(users) if items is None else items,
            "event_time": pa.array([at * SECOND] * len(users)).cast(pa.timestamp("us")),
        }
    )
    return {name: column.to_pylist() for name, column in fold.columns(asked, fold.features.names).items()}


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    return open_log(f"folder://{tmp_path}/log?partitions=2&fsync=never")


def test_an_event_that_is_in_the_log_twice_counts_once(log: EventLog) -> None:
    fold = LogFold(log, RUNNING, {})
    log.append(0, batch([{"event_id": "a", "user": 1}, {"event_id": "b", "user": 1}, {"event_id": "a", "user": 1}]))
    log.append(1, batch([{"event_id": "b", "user": 1}, {"event_id": "c", "user": 1}]))
    fold.catch_up()
    assert answers(fold, [1])["clicks"] == [3.0]
    assert fold.ignored["repeated"] == 2


def test_impressions_do_not_count_and_kinds_may_be_named(log: EventLog) -> None:
    kinds = ("click", "buy", "impression", "view")
    log.append(0, batch([{"event_id": kind, "kind": kind, "user": 1} for kind in kinds]))
    named = RUNNING.model_copy(update={"kinds": ("buy", "impression")})
    for running, expected in ((RUNNING, 3.0), (named, 2.0)):
        fold = LogFold(log, running, {})
        fold.catch_up()
        assert answers(fold, [1])["clicks"] == [expected]


def test_what_was_appended_is_folded_when_it_is_reached(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embtables.serving.running.log_fold._LAST_FOLDED", 3)
    fold, appended = LogFold(log, RUNNING, {}), []
    for number in range(30):
        appended.append(log.append(number % 2, batch([{"event_id": f"{number}", "user": 1}])))
        if number % 3:  # another thread may be faster
            fold.catch_up()
        fold.reach({number % 2: appended[-1]})
        assert fold.features.counts.events == number + 1
    fold.reach({0: appended[0]})  # long folded, more entries ago than are remembered


def test_who_reaches_what_is_there_waits_for_nothing(log: EventLog) -> None:
    fold = LogFold(log, RUNNING, {})
    with patch.object(fold, "wait", side_effect=AssertionError("waits")):
        for number in range(5):
            fold.reach({0: log.append(0, batch([{"event_id": f"{number}", "user": 1}]))})
            assert answers(fold, [1])["clicks"] == [number + 1.0]


class ForgetfulLog:
    """A log that gives nothing back."""

    num_partitions = 1

    def read(self, partition: int, after: str | None, *, max_entries: int = 1000) -> list[Any]:
        return []

    def last(self, partition: int) -> str | None:
        return "7"

    def wait(self, after: Any, timeout_seconds: float) -> bool:
        return False


def test_what_a_log_does_not_give_back_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embtables.serving.running.log_fold._REACH_SECONDS", 0.0)
    lost: Any = ForgetfulLog()
    with pytest.raises(EventLogError, match="does not give back"):
        LogFold(lost, RUNNING, {}).reach({0: "7"})


def event(number: int) -> dict[str, Any]:
    """The same event has the same columns wherever in the log it is."""
    price = (1.0, 9.0, None)[number % 3]
    columns = {"user": number % 4, "item": "abc"[number % 3], "price": price, "event_time": number * 17 * SECOND}
    return {"event_id": str(number), **columns}


EVENTS = st.lists(st.integers(0, 50).map(event), max_size=8)


@patch("os.fsync", lambda handle: None)  # processes die here, machines do not
@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 1), EVENTS), max_size=8), st.data())
def test_restarts_come_to_what_one_fold_comes_to(
    tmp_path_factory: pytest.TempPathFactory, entries: list[tuple[int, list[dict[str, Any]]]], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("log")
    log = open_log(f"folder://{folder}/log?partitions=2&fsync=never")
    fold = LogFold(log, RUNNING, {}, folder / "running")
    seen, by_user, cheap = set[str](), Counter[int](), Counter[int]()
    for partition, rows in entries:
        if not rows:
            continue
        log.append(partition, batch(rows))
        for row in rows:
            if row["event_id"] not in seen:
                seen.add(row["event_id"])
                by_user[row["user"]] += 1
                cheap[row["user"]] += row["price"] == 1.0
        do = data.draw(st.sampled_from(["nothing", "fold", "write", "kill"]))
        if do != "nothing":
            fold.catch_up()
        if do == "write":
            fold.write_checkpoint()
        if do == "kill":  # what was folded since the last checkpoint is gone
            fold.close()
            fold = LogFold(log, RUNNING, {}, folder / "running")
    fold.catch_up()
    found = answers(fold, list(range(4)))
    assert found["clicks"] == [float(by_user[user]) for user in range(4)]
    assert found["cheap"] == [float(cheap[user]) for user in range(4)]
    whole = LogFold(log, RUNNING, {})
    whole.catch_up()
    assert answers(whole, list(range(4)), ["a", "b", "c", "a"])["clicks"] == found["clicks"]
    fold.close()
    log.close()


def test_ids_of_another_kind_are_no_keys(log: EventLog, tmp_path: Path) -> None:
    fold = LogFold(log, RUNNING, {"user": "integers"}, tmp_path / "running")
    log.append(0, batch([{"event_id": "a", "user": "1"}, {"event_id": "b", "user": None}], user=pa.string()))
    log.append(0, batch([{"event_id": "c", "user": 1.0}], user=pa.float64()))
    log.append(0, batch([{"event_id": "d", "user": [1]}], user=pa.list_(pa.int64())))
    log.append(0, batch([{"event_id": "e", "user": 1}], user=pa.uint8()))
    fold.catch_up()
    assert answers(fold, [1])["clicks"] == [1.0]
    assert fold.ignored["user"] >= 4
    # Of a column that training says nothing of, the first events do.
    assert dict(fold.id_kinds) == {"user": "integers", "item": "strings"}
    log.append(0, batch([{"event_id": "f", "user": 1, "item": 7}], item=pa.int64()))
    fold.catch_up()
    assert answers(fold, [1])["items"][0] == answers(fold, [1], ["b"])["items"][0]
    assert fold.ignored["item"] == 1
    fold.write_checkpoint()
    fold.close()
    with pytest.raises(StateError, match="holds integers in the checkpoint's events, and strings in training"):
        LogFold(log, RUNNING, {"user": "strings"}, tmp_path / "running")


def test_columns_without_meaning_are_ignored_and_counted(log: EventLog) -> None:
    fold = LogFold(log, RUNNING, {})
    log.append(0, batch([{"event_id": "a", "user": 1, "price": "no"}], price=pa.string()))
    log.append(0, batch([{"event_id": "b", "user": 1, "price": float("nan")}]))
    log.append(0, batch([{"event_id": "c", "user": 1, "price": 2.0}, {"event_id": "d", "user": None, "price": 2.0}]))
    log.append(0, pa.record_batch({"anything": [1, 2]}))
    log.append(0, batch([{"event_id": "e", "item": "z"}]))
    fold.catch_up()
    found = answers(fold, [1])
    assert (found["clicks"], found["cheap"], found["paid"]) == ([2.0], [1.0], [2.0])
    ignored = fold.ignored
    assert (ignored["damaged"], ignored["price"]) == (2, 2)
    assert ignored["user"] >= 2


def test_an_event_is_ignored_once_though_another_column_is_of_a_wrong_type(log: EventLog) -> None:
    features = [{"name": "paid", "last_value": "price", "by": "item"}, {"name": "n", "last_value": "n", "by": "item"}]
    fold = LogFold(log, Running.model_validate({"features": features}), {})
    rows = [{"event_id": "a", "price": float("nan"), "n": "no"}, {"event_id": "b", "price": 2.0, "n": "no"}]
    log.append(0, batch(rows, n=pa.string()))
    fold.catch_up()
    assert fold.ignored == {"price": 1, "n": 2}
    assert fold.features.counts.events == 2


def test_events_of_before_the_beginning_are_left_out(log: EventLog, tmp_path: Path) -> None:
    from embtables.running import RunningFeatures, write_checkpoint
    from embtables.serving.running.fold_position import FoldPosition

    before = RunningFeatures(RUNNING.features, RUNNING.options)
    before.fold(batch([{"event_id": "x", "user": 1, "event_time": 5 * SECOND, "price": 1.0}]))
    position = FoldPosition(until_us=6 * SECOND)
    write_checkpoint(tmp_path / "running", before.state(), position.model_dump(mode="json"))
    rows = [{"event_id": f"{at}", "user": 1, "event_time": at * SECOND} for at in (4, 5, 6, 7)]
    log.append(0, batch(rows))
    for _ in range(2):  # also after a restart
        fold = LogFold(log, RUNNING, {}, tmp_path / "running")
        fold.catch_up()
        assert answers(fold, [1])["clicks"] == [3.0]
        assert fold.ignored["before_begin"] == 2
        fold.write_checkpoint()
        fold.close()


def test_a_folder_is_of_one_process_and_of_one_log(log: EventLog, tmp_path: Path) -> None:
    log.append(1, batch([{"event_id": "a", "user": 1}]))
    fold = LogFold(log, RUNNING, {}, tmp_path / "running")
    with pytest.raises(StateError, match="another process folds into it"):
        LogFold(log, RUNNING, {}, tmp_path / "running")
    fold.catch_up()
    fold.write_checkpoint()
    fold.close()
    other = open_log(f"folder://{tmp_path}/other")
    with pytest.raises(StateError, match="it is of another log"):
        LogFold(other, RUNNING, {}, tmp_path / "running")
    with pytest.raises(StateError, match="counts events of the kinds all but impressions, and the model those of buy"):
        LogFold(log, RUNNING.model_copy(update={"kinds": ("buy",)}), {}, tmp_path / "running")
    with pytest.raises(StateError, match="was made with other definitions"):
        LogFold(log, RUNNING.model_copy(update={"features": RUNNING.features[:1]}), {}, tmp_path / "running")
    LogFold(log, RUNNING, {}, tmp_path / "running").close()  # what was refused holds nothing


def test_a_checkpoint_is_written_where_something_is_new(log: EventLog, tmp_path: Path) -> None:
    fold = LogFold(log, RUNNING, {}, tmp_path / "running")
    log.append(0, batch([{"event_id": "a", "user": 1}]))
    fold.catch_up()
    fold.write_checkpoint()
    first = (tmp_path / "running" / "running.json").stat().st_ino
    fold.write_checkpoint()
    assert (tmp_path / "running" / "running.json").stat().st_ino == first
    fold.reach({1: log.append(1, batch([{"event_id": "b", "user": 1}]))})
    fold.write_checkpoint()
    found = read_checkpoint(tmp_path / "running")
    assert found is not None
    assert found.position["positions"] == {"0": log.last(0), "1": log.last(1)}
    assert np.isin([len(of) for of in found.of_reader.values()], [0, 2]).all()
    fold.close()

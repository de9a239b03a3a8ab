"""Threads that ask while one folds and another takes states: nothing is lost, and what was folded is seen."""

from __future__ import annotations

import threading
from pathlib import Path

import pyarrow as pa
import pytest

from embtables.running import RunningFeatures
from tests.embtables.running.oracle_for_tests import as_batch
from tests.embtables.running.test_running_features import COLUMNS, FEATURES, SECOND, assert_same_state, at

DOCS = Path(__file__).parents[3] / "docs"
BATCHES, USERS = 200, 5


def batch(number: int) -> pa.RecordBatch:
    """A sale of each item to a user, whose list is then that of its items in order."""
    rows = [{"item": f"i{n}", "user": n % USERS, "price": float(number)} for n in range(300)]
    return as_batch(at(rows, [number * SECOND] * len(rows)), COLUMNS)


def test_readers_beside_a_fold_see_whole_values_that_only_grow() -> None:
    fold = RunningFeatures(FEATURES)
    asked = as_batch(at([{"item": f"i{n}", "user": n % USERS} for n in range(300)], [10**6 * SECOND] * 300), COLUMNS)
    folded = 0
    done = threading.Event()
    failures: list[str] = []

    def read() -> None:
        least = 0
        while not done.is_set():
            acknowledged = folded
            found = fold.columns(asked, ["sales", "history", "price"])
            counts, prices = found["sales"].to_pylist(), found["price"].to_pylist()
            if not all(max(least, acknowledged) <= count <= BATCHES for count in counts):
                failures.append(f"{acknowledged} batches were folded, counts are {min(counts)} to {max(counts)}")
            if acknowledged and not all(acknowledged - 1 <= price < BATCHES for price in prices):
                failures.append(f"{acknowledged} batches were folded, last prices are from {min(prices)}")
            if acknowledged and set(map(len, found["history"].to_pylist())) != {3}:
                failures.append("a history is not whole")
            least = int(min(counts))

    def take_states() -> None:
        while not done.is_set():
            state = fold.state()
            if state.counts.events % 300:
                failures.append(f"a state with {state.counts.events} events is within a batch")

    threads = [threading.Thread(target=of) for of in (read, read, take_states)]
    for thread in threads:
        thread.start()
    for number in range(BATCHES):
        fold.fold(batch(number))
        folded = number + 1
    done.set()
    for thread in threads:
        thread.join()
    assert failures == []
    alone = RunningFeatures(FEATURES)
    for number in range(BATCHES):
        alone.fold(batch(number))
    assert_same_state(fold, alone)


def test_the_example_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = (part.split("```")[0] for part in (DOCS / "running.md").read_text().split("```python\n")[1:])
    for _ in range(2):  # the second time from the checkpoint of the first
        names: dict[str, object] = {}
        exec(compile(code, "running.md", "exec"), names)
        columns = names["columns"]
        assert isinstance(columns, dict)
    assert columns["sales_1h"].to_pylist() == [2.0]

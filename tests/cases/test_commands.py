"""`predict`, `data.prepare` and `state export` over logs that change between files."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.cases.case import Case, Cases, Done, embtables, train
from tests.cases.log import Folder, clicks, config, every, required

CASES = Cases()
N = 300


class Trained:
    """A folder whose log has trained a model: its run, and files to score beside it."""

    def __init__(self, root: Path, text: str, **more: Any) -> None:
        self.folder = Folder(root)
        self.folder.write("a.parquet", clicks(**more))
        done = train(self.folder, text)
        assert done.status == 0, done.errors
        self.run, self.scores = done.report["run_dir"], root / "scores.parquet"

    def add(self, name: str, columns: pa.Table | dict[str, Any]) -> None:
        self.folder.write(f"/new/{name}", columns)

    def predict(self, *more: str) -> Done:
        return embtables("predict", self.run, self.folder.root / "new", self.scores, "--json", *more)

    def scored(self, *more: str) -> pa.Table:
        """The table that `predict` writes."""
        done = self.predict(*more)
        assert done.status == 0, done.errors
        table = pq.read_table(self.scores)
        assert done.report["rows"] == table.num_rows
        scores = np.asarray(table.column("score"))
        assert ((scores > 0) & (scores < 1)).all()
        return table


@pytest.fixture
def trained(tmp_path: Path) -> Trained:
    """A model of the column u, read in blocks of 100 rows."""
    return Trained(tmp_path, config(data="block_rows: 100"))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("one", "other"),
    [
        (every(range(7), N, pa.int32()), every(range(7), N)),
        (every(["a", "b"], N).dictionary_encode(), every(["a", "b"], N)),
        (every(["a", "b"], N, pa.string_view()), every(["a", "b"], N, pa.large_string())),
        (every([0.5, None], N, pa.float32()), every([1.5], N)),
        (every([1], N, pa.timestamp("s")), every([1], N, pa.timestamp("us"))),
        (pa.nulls(N), every(["a", "b"], N)),
    ],
    ids=["widths", "dictionary", "view", "floats", "units", "null"],
)
def test_a_carried_column_of_two_types(trained: Trained, one: Any, other: Any, reverse: bool) -> None:
    first, second = (other, one) if reverse else (one, other)
    trained.add("a.parquet", {**clicks(N), "k": first})
    trained.add("b.parquet", {**clicks(N), "k": second})
    table = trained.scored()
    assert table.column("k").to_pylist() == first.to_pylist() + second.to_pylist()
    assert table.column("u").to_pylist() == 2 * clicks(N)["u"].to_pylist()


def test_carried_columns_of_every_kind(trained: Trained) -> None:
    carried = {
        "st": pa.array([{"a": 1}] * N),
        "m": pa.array([[("k", 1)]] * N, pa.map_(pa.string(), pa.int64())),
        "ll": pa.array([[[1]]] * N),
        "nul": pa.nulls(N),
        "id": pa.array([uuid.UUID(int=i).bytes for i in range(N)], pa.uuid()),
        "d": every(["a"], N).dictionary_encode(),
        "dec": every([1], N, pa.decimal128(20, 0)),
        "ls": pa.array([[{"a": "x"}]] * N),
        "fsl": every([[1.0, 2.0]], N, pa.list_(pa.float32(), 2)),
        "sv": every(["q"], N, pa.string_view()),
    }
    trained.add("a.parquet", {**clicks(N), **carried})
    table = trained.scored()
    for name, column in carried.items():
        assert table.column(name).to_pylist() == column.to_pylist(), name


def test_two_unused_columns_of_one_name(trained: Trained) -> None:
    c = clicks(N)
    trained.add("a.parquet", pa.table([c["u"], c["x"], c["x"]], names=["u", "z", "z"]))
    done = trained.predict()
    assert done.status == 1
    assert "column z: is there 2 times" in " ".join(done.errors.split())
    assert trained.scored("--columns", "u").column_names == ["u", "score"]


def test_a_file_without_a_column_that_only_is_carried(trained: Trained) -> None:
    trained.add("a.parquet", {**clicks(N), "note": every(["x"], N)})
    trained.add("b.parquet", clicks(N))
    done = trained.predict()
    assert done.status == 1
    assert all(part in done.errors for part in ("b.parquet", "column note", "--columns"))
    assert trained.scored("--columns", "u").num_rows == 2 * N


def test_a_column_named_score(trained: Trained) -> None:
    trained.add("a.parquet", {"u": [1, 2], "score": [0.1, 0.2]})
    done = trained.predict()
    assert done.status == 2
    assert "'score'" in done.errors
    assert "--columns" in done.errors


def test_input_without_rows(trained: Trained) -> None:
    trained.add("a.parquet", {"u": pa.array([], pa.int64())})
    done = trained.predict()
    assert done.status == 1
    assert "no rows" in done.errors
    assert not trained.scores.exists()


def test_output_inside_of_the_input(trained: Trained) -> None:
    trained.add("a.parquet", {"u": [1, 2]})
    trained.scores = trained.folder.root / "new" / "scores.parquet"
    assert trained.scored().num_rows == 2


def test_input_without_labels_and_split_column(tmp_path: Path) -> None:
    split = "split: {kind: column, column: p, validation: []}"
    trained = Trained(tmp_path, config(data=split), p=every(["train", "test"], 600))
    trained.add("dt=2024-01-01/a.parquet", {"u": pa.array([None, 10**9, 1, 2])})
    table = trained.scored()
    assert table.column("u").to_pylist() == [None, 10**9, 1, 2]
    assert table.column("dt").to_pylist() == ["2024-01-01"] * 4


def test_a_bad_row_is_named_without_an_advice_that_does_not_help(tmp_path: Path) -> None:
    trained = Trained(tmp_path, config(dense="[{column: x}]", data="on_bad_row: quarantine"))
    trained.add("a.parquet", {"u": [1, 2], "x": [0.1, float("nan")]})
    done = trained.predict()
    assert done.status == 1
    assert all(part in done.errors for part in ("a.parquet", "column x", "row 1"))
    assert "quarantine" not in done.errors


def test_every_id_of_the_log_is_exported(tmp_path: Path) -> None:
    users = np.random.default_rng(2).permutation(5000) % 1000 - 500
    folder = Folder(tmp_path)
    folder.write("a.parquet", {**clicks(5000), "u": pa.array(users)})
    run = train(folder, config()).report["run_dir"]
    assert embtables("state", "export", run, "t", tmp_path / "out.parquet").status == 0
    keys = pq.read_table(tmp_path / "out.parquet").column("key").to_pylist()
    assert (len(keys), len(set(keys))) == (1000, 1000)


PREPARE = "prepare: {kind: sampled_negatives, item: item, user: user, group: inv, event_time: ts}"


def sales(item: Any, first: int = 0) -> dict[str, Any]:
    """One line per hour and invoice, of 9 users."""
    rows = len(item)
    hours = (1_700_000_000 + np.arange(rows) * 3600) * 1_000_000
    return {
        "item": item,
        "user": pa.array(np.arange(rows) % 9),
        "inv": pa.array(np.arange(rows) + first),
        "ts": pa.array(hours, pa.timestamp("us")),
    }


def prepared(*items: Any, each: Callable[[dict[str, Any], int], Any] = lambda c, _: c) -> Callable[[Folder], str]:
    """A purchase-only log of a file for each column of items."""

    def build(log: Folder) -> str:
        for number, item in enumerate(items):
            log.write(f"{number}.parquet", each(sales(item, number * 400), number))
        return config("item", labels="[{column: label}]", data=PREPARE)

    return build


_NAMES = every([f"s{i}" for i in range(20)], 400)


@CASES.trains(None, ids=20)
def prepare_strings(log: Folder) -> str:
    return prepared(_NAMES, _NAMES, each=lambda c, n: required(c) if n else c)(log)


@CASES.trains(None, ids=20)
def prepare_dictionaries_and_views(log: Folder) -> str:
    return prepared(_NAMES.dictionary_encode(), _NAMES.cast(pa.string_view()))(log)


@CASES.trains(None, ids=20)
def prepare_unsigned_integers(log: Folder) -> str:
    return prepared(every([2**63 + i for i in range(20)], 400, pa.uint64()))(log)


@CASES.refused("column item", "double")
def prepare_floats(log: Folder) -> str:
    return prepared(every([i + 0.5 for i in range(20)], 400))(log)


@CASES.refused("0.parquet", "1.parquet", "column item")
def prepare_integers_and_strings(log: Folder) -> str:
    return prepared(every(range(20), 400), _NAMES)(log)


@CASES.refused("holds no rows to prepare")
def prepare_nothing(log: Folder) -> str:
    return prepared(pa.array([], pa.string()))(log)


@pytest.mark.parametrize("case", CASES)
def test_prepare(case: Case, tmp_path: Path) -> None:
    case.check(tmp_path)

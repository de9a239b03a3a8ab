"""A warning where nearly no id of a feature is known: evaluations and predictions, files and frames."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import embtables as et
from embtables.errors import ConfigError
from embtables.pipelines.training.figures import cold_ids

ROWS = 2_000


def frame(rows: int = ROWS, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    user, item = rng.integers(1, 201, rows), rng.integers(0, 150, rows)
    click = rng.random(rows) < 0.2 + 0.4 * (user % 2)
    return pd.DataFrame({"row": np.arange(rows), "user": user, "item": [f"i{i}" for i in item], "click": click})


def configuration(**changes: Any) -> dict[str, Any]:
    table = {"dim": 4, "optimizer": {"kind": "adagrad", "learning_rate": 0.1}}
    made: dict[str, Any] = {
        "tables": [{"name": "user", **table}, {"name": "item", **table}],
        "features": [{"name": "user", "table": "user"}, {"name": "item", "table": "item"}],
        "labels": [{"column": "click"}],
        "data": {"path": "unused", "split": {"kind": "hash", "columns": ["row"], "validation": 0.0, "test": 0.5}},
        "model": {"kind": "lr"},
        "train": {"epochs": 1, "batch_size": 200},
    }
    return {**made, **changes}


@pytest.fixture(scope="module")
def run() -> et.Run:
    return et.train(configuration(), frame(), shown=False)


CHANGES: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], str]] = {
    "prefix": (lambda df: df.assign(item="x" + df["item"]), "feature item: 100 % of its ids .* rows: 'xi"),
    "padded": (lambda df: df.assign(item=df["item"].str.pad(8)), "feature item: 100 % of its ids .* rows: ' "),
    "shifted": (lambda df: df.assign(user=df["user"] + 1000), r"feature user: 100 % .* rows: 1\d\d\d; of the table: "),
    "nearly all": (
        lambda df: df.assign(user=df["user"].where(df["row"] % 301 == 0, df["user"] + 10**6)),
        "feature user: 99 % of its ids have no row in table user, although training has made rows",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_an_evaluation_says_so(run: et.Run, change: str) -> None:
    make, message = CHANGES[change]
    (said,) = [w for w in run.evaluate(data=make(frame(seed=1)), shown=False)["warnings"] if "have no row" in w]
    assert pd.Series([said]).str.match(message).all(), said
    assert "type, padding, prefix, hashing" in said
    if "of the table" in said:
        id_of_table = int(said.split("of the table: ")[1].split(")")[0])
        assert run.scorer.tables.known("linear.user", [id_of_table]).all()


def test_the_same_ids_say_nothing(run: et.Run) -> None:
    assert not [w for w in run.report()["warnings"] if "have no row" in w]
    half = frame(seed=1)
    half["user"] = half["user"].where(half["row"] % 2 == 0, half["user"] + 10**6)
    assert not [w for w in run.evaluate(data=half, shown=False)["warnings"] if "have no row" in w]


def test_few_rows_say_nothing(run: et.Run) -> None:
    few = frame(cold_ids._LEAST_IDS - 1).assign(user=10**6)
    assert not [w for w in run.evaluate(data=few, shown=False)["warnings"] if "have no row" in w]


def test_a_prediction_says_so(run: et.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changed = frame().assign(user=lambda df: df["user"] + 1000)
    run.predict(changed)
    assert "warning: feature user: 100 % of its ids have no row" in " ".join(capsys.readouterr().err.split())
    changed.to_parquet(tmp_path / "log.parquet")
    done = run.predict(tmp_path / "log.parquet", tmp_path / "scores.parquet", shown=False)
    assert [w.split(":")[0] for w in done["warnings"]] == ["feature user"]


def test_training_says_it_of_its_test_part_once() -> None:
    log = frame()
    log["part"] = np.where(log["row"] % 2 == 0, "a", "b")
    log["user"] = log["user"].where(log["part"] == "a", log["user"] + 1000)
    split = {"kind": "column", "column": "part", "train": ["a"], "validation": ["b"], "test": ["b"]}
    made = configuration(data={"path": "unused", "split": split})
    made["train"] |= {"epochs": 3}
    report = et.train(made, log, shown=False).report()
    assert [w.split(":")[0] for w in report["warnings"] if "have no row" in w] == ["feature user"]


def test_parts_that_are_divided_by_the_column_and_crosses_say_nothing() -> None:
    split = {"kind": "hash", "columns": ["user"], "validation": 0.0, "test": 0.5}
    made = configuration(data={"path": "unused", "split": split})
    made["features"].append({"name": "both", "cross": ["user", "item"], "table": "user"})
    report = et.train(made, frame(3 * ROWS), shown=False).report()
    assert not [w for w in report["warnings"] if "have no row" in w]


def test_a_fixed_table_cannot_tell() -> None:
    made = configuration()
    made["tables"] = [{**table, "num_rows": 1000} for table in made["tables"]]
    fixed = et.train(made, frame(), shown=False)
    changed = frame().assign(user=lambda df: df["user"] + 10**6)
    assert not [w for w in fixed.evaluate(data=changed, shown=False)["warnings"] if "have no row" in w]
    assert fixed.scorer.tables.known("linear.user", [1, 10**9]).tolist() == [True, True]


@pytest.mark.parametrize("row_store", ["host", "reference"])
def test_known_tells_ids_with_a_row_and_changes_nothing(row_store: Any) -> None:
    item = et.CollisionlessTable(name="item", dim=2, optimizer=et.Sgd(learning_rate=0.1))
    features = [et.Feature(name="a", table="item", encoder=et.MultiHash(num_hashes=2))]
    one = et.Tables([item], [et.Feature(name="a", table="item")], seed=0, row_store=row_store)
    one.set("item", [3, -7], [[1.0, 1.0]] * 2)  # type: ignore[arg-type]
    assert one.known("item", np.array([3, 4, -7], np.int32)).tolist() == [True, False, True]  # type: ignore[arg-type]
    assert one.known("item", []).tolist() == []  # type: ignore[arg-type]
    assert (one.num_rows("item"), one.stats()["item"].rows) == (2, 2)
    several = et.Tables([item], features, seed=0, row_store=row_store)
    assert several.known("item", [3, 4]).tolist() == [False, False]  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="there is no such table"):
        one.known("nope", [1])  # type: ignore[arg-type]

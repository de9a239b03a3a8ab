"""What training, evaluation and prediction warn of: said once each on stderr, listed in the report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embtables.pipelines.call.runs import evaluate
from embtables.pipelines.config import RunConfig
from embtables.pipelines.run_dir import RunDir
from embtables.pipelines.trained.load_run import load_run
from embtables.pipelines.trained.predict import predict
from embtables.pipelines.training.figures.odd_figures import odd_figures
from embtables.pipelines.training.train import resume, train

Make = Callable[..., RunConfig]


def change(log_dir: Path, edit: Callable[[pa.Table], pa.Table]) -> None:
    for file in log_dir.glob("*.parquet"):
        pq.write_table(edit(pq.read_table(file)), file)


def with_column(name: str, values: Callable[[pa.Table], Any]) -> Callable[[pa.Table], pa.Table]:
    def edit(table: pa.Table) -> pa.Table:
        kept = table.drop_columns([name]) if name in table.column_names else table
        return kept.append_column(name, pa.array(values(table)))

    return edit


def named(report: dict[str, Any], words: str) -> list[str]:
    return [text for text in report["warnings"] if words in text]


def test_a_usual_run_has_no_warnings(make_config: Make, capsys: pytest.CaptureFixture[str]) -> None:
    report = train(make_config(**{"train.epochs": 6}))
    assert report["warnings"] == []
    assert "warning" not in capsys.readouterr().err


def test_a_dense_column_that_is_the_label_is_said_once(make_config: Make, capsys: pytest.CaptureFixture[str]) -> None:
    report = train(make_config(**{"dense": [{"column": "label"}]}))
    text = "dense column label reads column label, which is the label"
    assert len(named(report, text)) == 1
    assert capsys.readouterr().err.count(f"warning: {text}") == 1
    assert not named(report, "has one value where")  # one warning for one fault


@pytest.mark.parametrize("role", ["dense", "feature"])
def test_a_column_that_tells_the_label_is_named(make_config: Make, log_dir: Path, role: str) -> None:
    change(log_dir, with_column("price", lambda t: np.where(t["label"].to_numpy() == 1, 7, 3)))
    features = [{"name": "user", "table": "user", "encoder": {"kind": "identity"}}, {"name": "item", "table": "item"}]
    changes: dict[str, Any] = {"dense": [{"column": "price"}], "features": features}
    if role == "feature":
        changes = {"dense": [], "features": [*features, {"name": "f", "column": "price", "table": "item"}]}
    report = train(make_config(**changes, **{"train.epochs": 20}), shown=False)
    what = "dense column price" if role == "dense" else "feature f"
    assert named(report, f"{what} has one value where column label is 0 and another where it is 1")
    assert report["auc"] == 1.0
    assert named(report, "the AUC of the test part is 1.0000: a column may tell the label")


def test_a_raw_epoch_wants_a_transform(make_config: Make, log_dir: Path) -> None:
    change(log_dir, with_column("price", lambda t: 1_627_776_000_000_000_000 + np.arange(t.num_rows)))
    report = train(make_config(dense=[{"column": "price"}]), shown=False)
    assert named(report, "dense column price enters the net with values of about 1.63e+18")
    fine = train(make_config(dense=[{"column": "price", "transforms": ["quantile"]}]), shown=False)
    assert not named(fine, "dense column")


def test_a_log_of_one_class_is_told_though_it_has_no_parts(make_config: Make, log_dir: Path) -> None:
    change(log_dir, with_column("label", lambda t: np.zeros(t.num_rows, np.int8)))
    report = train(make_config(**{"data.split": None}), shown=False)
    assert len(named(report, "the train part holds only the label 0 in column label")) == 1


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        ({"auc": 1.0}, ["is 1.0000: a column may tell"]),
        ({"auc": 0.5}, ["no better than scores drawn by lot"]),
        ({"auc": 0.1}, ["the wrong way round"]),
        ({"auc": 0.75, "log_loss": 6.3, "normalised_entropy": 10.0}, ["is 6.3000, above 0.6300, which the mean label"]),
        ({"auc": 0.75, "log_loss": 0.5, "normalised_entropy": 0.9}, []),
        ({"auc": None, "log_loss": 0.5, "normalised_entropy": None}, []),
        ({}, []),
    ],
)
def test_odd_figures_are_explained(figures: dict[str, Any], words: list[str]) -> None:
    found = odd_figures(figures, "test")
    assert len(found) == len(words)
    assert all(word in text for word, text in zip(words, found, strict=True))


def test_ids_of_another_type_are_told_in_evaluation_prediction_and_resumption(
    make_config: Make, log_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make_config(**{"features.0.encoder": {"kind": "hash"}, "train.epochs": 1})
    run = Path(train(config, shown=False)["run_dir"])
    assert evaluate(run, "test")["warnings"] == []
    change(log_dir, with_column("user", lambda t: [str(i) for i in t["user"].to_pylist()]))
    text = "feature user: column user holds strings here, but integers in training"
    capsys.readouterr()
    assert named(evaluate(run, "test"), text)
    assert f"warning: {text}" in capsys.readouterr().err
    done = predict(load_run(RunDir.open(run)), str(log_dir), tmp_path / "scores.parquet", shown=False)
    assert named(done, text)
    assert named(resume(RunDir.open(run), ("train.epochs=2",), shown=False), text)


def test_a_run_that_is_resumed_keeps_its_warnings(make_config: Make) -> None:
    config = make_config(**{"dense": [{"column": "label"}], "train.epochs": 1})
    run = RunDir.open(Path(train(config, shown=False)["run_dir"]))
    report = resume(run, ("train.epochs=2",), shown=False)
    assert len(named(report, "which is the label")) == 1

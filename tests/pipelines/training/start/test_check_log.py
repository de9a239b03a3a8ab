"""What is told of a log before training, by training and by `embtables schema check` alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embtables.errors import ConfigError, DataError, EmbtablesError
from embtables.pipelines.check import check
from embtables.pipelines.config import RunConfig
from embtables.pipelines.sources.log import Log
from embtables.pipelines.training.learner import Learner
from embtables.pipelines.training.start.check_log import check_log
from embtables.pipelines.training.train import train
from embtables.schema import to_yaml

Make = Callable[..., RunConfig]
ROWS = 900
BY_PART = {"kind": "column", "column": "part"}


def write(folder: Path, **columns: Any) -> None:
    """A log of one file: label and part go round, and other columns as given; None leaves one out."""
    rng = np.random.default_rng(0)
    table: dict[str, Any] = {
        "user": rng.integers(0, 40, ROWS),
        "item": [f"item-{i}" for i in rng.integers(0, 30, ROWS)],
        "tags": [[1, 2]] * ROWS,
        "price": rng.random(ROWS),
        "label": np.arange(ROWS) // 3 % 2,
        "time": pa.array(np.arange(ROWS) * 60, pa.timestamp("s")),
        "part": ["train", "validation", "test"] * (ROWS // 3),
        **columns,
    }
    for file in folder.glob("*.parquet"):
        file.unlink()
    pq.write_table(
        pa.table({name: values for name, values in table.items() if values is not None}), folder / "a.parquet"
    )


@pytest.fixture
def told(make_config: Make, log_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """The error that both training, before anything is made, and `schema check` end with."""

    def of(columns: dict[str, Any], **changes: Any) -> str:
        write(log_dir, **columns)
        config = make_config(**{"data.split": BY_PART, **changes})
        (tmp_path / "config.yaml").write_text(to_yaml(config))

        def refuse(*_: object, **__: object) -> None:
            raise AssertionError("training had begun")

        with monkeypatch.context() as patch, pytest.raises((DataError, ConfigError)) as raised:
            patch.setattr(Learner, "__init__", refuse)
            train(config, shown=False)
        with pytest.raises(EmbtablesError) as of_check:
            check(tmp_path / "config.yaml", (), shown=False)
        assert str(of_check.value) == str(raised.value)
        return str(raised.value)

    return of


LABEL = np.arange(ROWS) // 3 % 2
PART = np.array(["train", "validation", "test"] * (ROWS // 3))
STRUCTS = [{"a": 1}] * ROWS
DUE = {"early": {"kind": "time", "validation_from": "1970-01-01", "test_from": "2031-01-01"}}


@pytest.mark.parametrize(
    ("columns", "changes", "message"),
    [
        ({"part": ["train", "validation"] * (ROWS // 2)}, {}, "the test part holds no rows"),
        ({"part": ["train", "test"] * (ROWS // 2)}, {}, "the validation part holds no rows"),
        ({"part": ["validation", "test"] * (ROWS // 2)}, {}, "the train part holds no rows"),
        ({}, {"data.split": DUE["early"]}, "the train part holds no rows"),
        (
            {"label": np.where(PART == "validation", 0, LABEL)},
            {},
            "column label: holds only the label 0 in the validation part, so that auc, which decides",
        ),
        (
            {"weight": np.where(PART == "test", 0.0, 1.0)},
            {"sample_weight": "weight"},
            "column weight: all sample weights of the test part are 0, so that no figure is defined",
        ),
        (
            {"weight": np.where(PART == "train", 0.0, 1.0)},
            {"sample_weight": "weight"},
            "all sample weights of the train part are 0, so that nothing can be learned",
        ),
        (
            {"weight": np.where((PART == "validation") & (LABEL == 1), 0.0, 1.0)},
            {"sample_weight": "weight"},
            "holds only the label 0 in the validation part",  # those that count
        ),
        ({}, {"evaluate": {"group_column": "nix"}}, "a.parquet, column nix: is missing"),
        ({}, {"evaluate": {"baseline_columns": ["nix"]}}, "a.parquet, column nix: is missing"),
        ({}, {"evaluate": {"slices": [{"name": "s", "where": ["nix == 1"]}]}}, "a.parquet, column nix: is missing"),
        (
            {},
            {"evaluate": {"baseline_columns": ["item"]}},
            "a.parquet, column item: holds string; evaluate.baseline_",
        ),
        ({}, {"evaluate": {"group_column": "price"}}, "a.parquet, column price: holds double; group_column needs"),
        ({}, {"evaluate": {"slices": [{"name": "s", "where": ["price == a"]}]}}, "slice s, condition price: "),
        ({"user": STRUCTS}, {}, "a.parquet, feature user, column user: holds struct<a: int64>, which cannot be ids"),
        ({"user": [{"a": 1.5}] * ROWS}, {}, "feature user, column user: holds struct<a: double>"),
        ({"tags": [[[1]]] * ROWS}, {}, "a.parquet, feature tags, column tags: holds list<element: int64>"),
        ({"price": ["1"] * ROWS}, {}, "a.parquet, column price: holds string; a number is needed"),
        ({"label": [[1]] * ROWS}, {}, "a.parquet, column label: holds list<element: int64>; a number is needed"),
        ({"time": ["1970"] * ROWS}, {}, "a.parquet, column time: holds string; event times are"),
        ({"weight": ["1"] * ROWS}, {"sample_weight": "weight"}, "a.parquet, column weight: holds string"),
    ],
)
def test_it_is_told_before_training(
    told: Callable[..., str], columns: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    assert message in told(columns, **changes)


def test_the_counts_are_those_of_the_log(make_config: Make, log_dir: Path) -> None:
    label = np.where(PART == "test", 1, LABEL).astype(float)
    label[:9] = np.nan
    write(log_dir, label=label, weight=np.arange(ROWS) % 4)
    config = make_config(**{"data.split": BY_PART, "data.block_rows": 100, "sample_weight": "weight"})
    found = check_log(config, Log(config, config.data))
    for part in ("train", "validation", "test"):
        rows = part == PART
        good = rows & ~np.isnan(label)
        count = found.parts[part]  # type: ignore[index]
        weight = np.arange(ROWS) % 4
        assert (count.rows, count.judged) == (rows.sum(), good.sum())
        assert count.weight == weight[good].sum()
        assert count.positives == {"label": (weight * label)[good].sum()}
    assert found.warnings == (
        "the test part holds only the label 1 in column label: auc and normalised_entropy are undefined; look at "
        "data.split and data.where",
    )


def test_one_class_trains_where_log_loss_decides(make_config: Make, log_dir: Path) -> None:
    write(log_dir, label=np.where(PART == "validation", 0, LABEL))
    stopping = {"metric": "log_loss"}
    report = train(make_config(**{"data.split": BY_PART, "train.early_stopping": stopping}), shown=True)
    assert report["best_step"] is not None
    assert "the validation part holds only the label 0 in column label" in report["warnings"][0]


def test_a_log_without_a_split_is_not_read_twice(make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config(**{"data.split": None})
    log = Log(config, config.data)

    def refuse(*_: object) -> None:
        raise AssertionError("rows were read")

    monkeypatch.setattr(Log, "rows", refuse)
    assert check_log(config, log).parts["train"].rows == 1800


def test_schema_check_reports_the_parts(make_config: Make, log_dir: Path, tmp_path: Path) -> None:
    write(log_dir)
    (tmp_path / "config.yaml").write_text(to_yaml(make_config(**{"data.split": BY_PART})))
    report = check(tmp_path / "config.yaml", (), shown=False)
    assert report["parts"] == {"train": 300, "validation": 300, "test": 300}
    assert report["warnings"] == []

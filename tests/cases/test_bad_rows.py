"""Bad values: named with file, column and row, or set aside; numbers at the ends of their types."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.cases.case import Case, Cases, train
from tests.cases.log import BY_U, Folder, as_text, clicks, config, every

CASES = Cases()
ASIDE = "on_bad_row: quarantine"
NAN = float("nan")


def with_value(rows: int, row: int, value: Any, column: str = "x") -> dict[str, Any]:
    """Clicks with one value replaced."""
    columns = clicks(rows)
    values = columns[column].to_pylist() if column in columns else [1.0] * rows
    values[row] = value
    return {**columns, column: pa.array(values)}


@CASES.refused("a.parquet", "column x", "row 17")
def dense_beyond_float32(log: Folder) -> str:
    log.write("a.parquet", with_value(600, 17, 1e300))
    return config(dense="[{column: x}]")


@CASES.trains(599, quarantined=1)
def dense_beyond_float32_set_aside(log: Folder) -> str:
    log.write("a.parquet", with_value(600, 17, 1e300))
    return config(dense="[{column: x}]", data=ASIDE)


@CASES.refused("a.parquet", "column x", "row 17")
def standardised_beyond_float32(log: Folder) -> str:
    log.write("a.parquet", with_value(600, 17, 1.7e308))
    return config(dense="[{column: x, transforms: [standardise]}]")


@CASES.refused("a.parquet", "column w", "row 3")
def sample_weight_beyond_float32(log: Folder) -> str:
    log.write("a.parquet", with_value(600, 3, 1e300, "w"))
    return config(sample_weight="w")


@CASES.refused("a.parquet", "column w", "row 9", "not negative")
def negative_sample_weight(log: Folder) -> str:
    log.write("a.parquet", with_value(600, 9, -1.0, "w"))
    return config(sample_weight="w")


@CASES.trains(600)
def batch_whose_weights_are_zero(log: Folder) -> str:
    log.write("a.parquet", clicks(w=pa.array([0.0] * 256 + [1.0] * 344)))
    return config(sample_weight="w", train="clip_norm: 1.0")


@CASES.refused("weight", "w")
def weights_that_are_all_zero(log: Folder) -> str:
    log.write("a.parquet", clicks(w=pa.array(np.zeros(600))))
    return config(sample_weight="w", data=BY_U)


@CASES.refused("a.parquet", "column x", "row 0", "nan")
def nan_is_not_filled_by_fill_null(log: Folder) -> str:
    log.write("a.parquet", {**clicks(300), "x": every([NAN, 1.0, 1.0, 1.0, 1.0], 300)})
    return config(dense="[{column: x, fill_null: 0}]")


@CASES.trains(300, quarantined=0)
def nan_is_filled_on_request(log: Folder) -> str:
    log.write("a.parquet", {**clicks(300), "x": every([NAN, None, 1.0, 1.0, 1.0], 300)})
    return config(dense="[{column: x, fill_null: 0, fill_nan: -1}]")


@CASES.refused("a.parquet", "column x", "row 4", "log1p")
def log1p_of_minus_one(log: Folder) -> str:
    log.write("a.parquet", with_value(300, 4, -1.0))
    return config(dense="[{column: x, transforms: [log1p, standardise]}]")


@CASES.trains(299, quarantined=1)
def log1p_of_minus_one_set_aside(log: Folder) -> str:
    log.write("a.parquet", with_value(300, 4, -1.0))
    return config(dense="[{column: x, transforms: [log1p]}]", data=ASIDE)


@CASES.trains(299, quarantined=1)
def log1p_of_minus_one_set_aside_then_standardised(log: Folder) -> str:
    log.write("a.parquet", with_value(300, 4, -1.0))
    return config(dense="[{column: x, transforms: [log1p, standardise]}]", data=ASIDE)


@CASES.trains(580, quarantined=320)
def whole_batch_of_bad_rows(log: Folder) -> str:
    values = np.random.default_rng(1).random(900)
    values[200:520] = NAN
    log.write("a.parquet", {**clicks(900), "x": pa.array(values)})
    return config(dense="[{column: x}]", data=ASIDE)


def _in_parts(log: Folder, first: int, last: int) -> str:
    """600 rows to train on and 300 to test, of which some are bad."""
    values = np.random.default_rng(1).random(900)
    values[first:last] = NAN
    parts = pa.array(["train"] * 600 + ["test"] * 300)
    log.write("a.parquet", {**clicks(900), "x": pa.array(values), "p": parts})
    split = f"split: {{kind: column, column: p, validation: []}}, {ASIDE}"
    return config(dense="[{column: x}]", data=split, evaluate="{batch_size: 100}")


@CASES.trains(600, evaluated=200)
def whole_batch_of_bad_rows_in_the_test_part(log: Folder) -> str:
    return _in_parts(log, 800, 900)


def test_bad_rows_of_the_test_part_are_counted_and_listed(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    report = train(folder, _in_parts(folder, 850, 870)).report
    assert (report["rows"], report["evaluated_rows"], report["quarantined_rows"]) == (600, 280, 20)
    listed = [p.read_text() for p in Path(report["run_dir"]).rglob("rows.jsonl")]
    rows = [json.loads(line)["row"] for text in listed for line in text.splitlines()]
    assert sorted(rows) == list(range(850, 870))


@CASES.refused("column x", during=True)
def every_row_is_bad(log: Folder) -> str:
    log.write("a.parquet", {**clicks(300), "x": pa.array([NAN] * 300)})
    return config(dense="[{column: x}]", data=f"{ASIDE}, {BY_U}")


@CASES.refused("column l", during=True)
def quantile_of_bad_rows_alone(log: Folder) -> str:
    log.write("a.parquet", clicks(300, l=pa.array([NAN] * 300)))
    return config(dense="[{column: l, transforms: [quantile]}]", data=ASIDE)


@CASES.trains(300, ids=40)
def quantile_of_nulls_alone(log: Folder) -> str:
    log.write("a.parquet", clicks(300, l=pa.nulls(300, pa.float64())))
    return config(dense="[{column: l, fill_null: 0, transforms: [quantile]}]")


@CASES.refused("a.parquet", "column s", "row 7", "UTF-8")
def bad_text_in_the_column_of_a_hash_split(log: Folder) -> str:
    log.write("a.parquet", clicks(s=as_text([b"\xff\xfe" if i == 7 else b"k%d" % i for i in range(600)])))
    return config(data="split: {kind: hash, columns: [s], validation: 0.1, test: 0.1}")


@CASES.trains(None, quarantined=1)
def bad_text_in_the_column_of_a_hash_split_set_aside(log: Folder) -> str:
    log.write("a.parquet", clicks(s=as_text([b"\xff\xfe" if i == 7 else b"k%d" % i for i in range(600)])))
    return config(data=f"{ASIDE}, split: {{kind: hash, columns: [s], validation: 0.1, test: 0.1}}")


@CASES.refused("a.parquet", "column y", "row 7", "0.5", "positive_above")
def label_between_0_and_1(log: Folder) -> str:
    log.write("a.parquet", {**clicks(300), "y": pa.array([0.5 if i == 7 else 1.0 for i in range(300)])})
    return config()


@CASES.refused("a.parquet", "column y", "row 0", "-1", "positive_above")
def labels_of_minus_one(log: Folder) -> str:
    log.write("a.parquet", {**clicks(300), "y": every([-1, 1], 300)})
    return config()


@CASES.refused("a.parquet", "column y", "row 3", "null")
def null_label(log: Folder) -> str:
    log.write("a.parquet", with_value(300, 3, None, "y"))
    return config()


@CASES.refused("column y", "string", "number is needed")
def labels_as_text(log: Folder) -> str:
    log.write("a.parquet", {**clicks(300), "y": clicks(300)["y"].cast(pa.string())})
    return config()


@CASES.trains(300, ids=40)
def standardised_decimals(log: Folder) -> str:
    numbers = clicks(300)["u"].cast(pa.decimal128(20, 0)).cast(pa.decimal128(22, 2))
    log.write("a.parquet", {**clicks(300), "x": numbers})
    return config(dense="[{column: x, transforms: [standardise]}]")


@CASES.trains(None)
def constant_columns_standardised(log: Folder) -> str:
    nearly = pa.array([1e15 + i % 2 for i in range(600)])
    log.write("a.parquet", clicks(c=pa.array([1e15] * 600), d=nearly))
    standard = [f"{{column: {c}, transforms: [standardise]}}" for c in "cd"]
    return config(dense=f"[{', '.join(standard)}]", data=BY_U)


@CASES.trains(None, warns=("dense column t", "standardise"))
def raw_epoch_as_a_dense_column(log: Folder) -> str:
    log.write("a.parquet", clicks(3000, t=pa.array(1_627_776_000_000_000_000 + np.arange(3000) * 10**9)))
    return config(dense="[{column: t}]", data=BY_U, train="epochs: 2")


@CASES.trains(None, warns=("label", "y"))
def label_as_a_dense_column(log: Folder) -> str:
    log.write("a.parquet", clicks())
    return config(dense="[{column: y}]", data=BY_U)


@CASES.refused("loss", "step", "learning rates", during=True)
def learning_rate_that_makes_the_loss_nan(log: Folder) -> str:
    log.write("a.parquet", clicks(2000))
    return config(
        dense="[{column: x}]",
        tables="[{name: t, dim: 4, optimizer: {kind: sgd, learning_rate: 1.0e+30}}]",
        train="epochs: 3, dense_optimizer: {learning_rate: 1.0e+30}, early_stopping: {metric: auc, patience: 5}",
        data=BY_U,
    )


@CASES.refused("learning_rate", "greater than 0")
def learning_rate_of_zero(log: Folder) -> str:
    log.write("a.parquet", clicks())
    return config(tables="[{name: t, dim: 4, optimizer: {kind: adagrad, learning_rate: 0}}]")


@pytest.mark.parametrize("case", CASES)
def test_bad_rows(case: Case, tmp_path: Path) -> None:
    case.check(tmp_path)

"""Training, validation and test parts, what is evaluated on them, and names in reports."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.cases.case import Case, Cases, Refused, Trained, check_refusal, check_trained, train
from tests.cases.log import BY_U, TABLES, Folder, clicks, config, every

CASES = Cases()
_TABLE = TABLES.strip("[]")


def by_column(train: str, test: str, validation: str = "[]", column: str = "p") -> str:
    return f"split: {{kind: column, column: {column}, train: {train}, validation: {validation}, test: {test}}}"


@CASES.trains(450, evaluated=150)
def split_by_a_boolean(log: Folder) -> str:
    log.write("a.parquet", clicks(p=pa.array([i % 4 == 0 for i in range(600)])))
    return config(data=by_column("[false]", "[true]"))


@CASES.trains(400, evaluated=200)
def split_by_yes_and_no(log: Folder) -> str:
    log.write("a.parquet", clicks(p=every(["no", "yes", "no"], 600)))
    return config(data=by_column("[no]", "[yes]"))


@CASES.trains(400, evaluated=200)
def split_by_integers(log: Folder) -> str:
    log.write("a.parquet", clicks(p=every([0, 1, 0], 600, pa.uint8())))
    return config(data=by_column("[0]", "[1]"))


@CASES.trains(449, evaluated=150, quarantined=0)
def split_by_bytes_of_which_one_value_is_not_text(log: Folder) -> str:
    parts = [b"\xff" if i == 9 else b"test" if i % 4 == 0 else b"train" for i in range(600)]
    log.write("a.parquet", clicks(p=pa.array(parts)))
    return config(data=by_column("[train]", "[test]"))


@CASES.refused("column p", "list")
def split_by_lists(log: Folder) -> str:
    log.write("a.parquet", clicks(p=every([["train"]], 600)))
    return config(data=by_column("[train]", "[test]"))


@CASES.trains(400, evaluated=200)
def split_by_hours_of_folders(log: Folder) -> str:
    for hour in ("00", "01", "02", "03"):
        log.write(f"hour={hour}/a.parquet", clicks(200))
    return config(data=by_column('["00", "01"]', '["03"]', '["02"]', column="hour"))


@CASES.trains(200, evaluated=200)
def split_by_dates_of_folders(log: Folder) -> str:
    for day in ("2024-01-01", "2024-01-02", "2024-01-03"):
        log.write(f"dt={day}/a.parquet", clicks(200))
    return config(data=by_column("[2024-01-01]", "[2024-01-03]", "[2024-01-02]", column="dt"))


@CASES.trains(200, evaluated=200)
def split_by_a_date_column(log: Folder) -> str:
    days = pa.array(np.repeat([19_723, 19_724, 19_725], 200).astype(np.int32)).cast(pa.date32())
    log.write("a.parquet", clicks(dt=days))
    return config(data=by_column("[2024-01-01]", "[2024-01-03]", "[2024-01-02]", column="dt"))


def _by_time(log: Folder, split: str) -> str:
    log.write("a.parquet", clicks(900, ts=pa.array(1_700_000_000 + np.arange(900))))
    return config(event_time="{column: ts, unit: s}", data=f"split: {{kind: time, {split}}}")


@CASES.refused("test part", "no rows")
def no_rows_to_test(log: Folder) -> str:
    return _by_time(log, "test_from: 2030-01-01")


@CASES.refused("validation part", "no rows")
def validation_part_without_rows(log: Folder) -> str:
    return _by_time(log, "validation_from: 2030-01-01, test_from: 2031-01-01")


def _one_class(log: Folder, part: str, label: int) -> None:
    parts = np.array(["train", "validation", "test"] * 300)
    labels = np.asarray(clicks(900)["y"]).copy()
    labels[parts == part] = label
    log.write("a.parquet", {**clicks(900), "y": pa.array(labels), "p": pa.array(parts)})


_PARTS = "split: {kind: column, column: p}"


@CASES.trains(300, evaluated=300)
def one_class_to_test(log: Folder) -> str:
    _one_class(log, "test", 1)
    return config(data=_PARTS)


@CASES.refused("validation part", "only the label", "auc")
def validation_part_of_one_class(log: Folder) -> str:
    _one_class(log, "validation", 0)
    return config(data=_PARTS)


@CASES.trains(600, evaluated=300)
def validation_part_of_one_class_by_log_loss(log: Folder) -> str:
    _one_class(log, "validation", 0)
    return config(data=_PARTS, train="epochs: 2, early_stopping: {metric: log_loss}")


@CASES.trains(600, ids=40)
def no_positive_at_all(log: Folder) -> str:
    log.write("a.parquet", {**clicks(), "y": pa.array(np.zeros(600, np.int64))})
    return config()


@CASES.trains(3000, ids=40)
def batches_without_a_positive(log: Folder) -> str:
    log.write("a.parquet", {**clicks(3000), "y": pa.array([0] * 2940 + [1] * 60)})
    return config()


@CASES.trains(20_000, evaluated=10_000, ids=40)
def one_positive_in_ten_thousand(log: Folder) -> str:
    labels = np.zeros(40_000, np.int64)
    labels[[5000, 15_000, 25_000, 35_000]] = 1
    parts = np.repeat(["train", "validation", "test"], [20_000, 10_000, 10_000])
    log.write("a.parquet", {**clicks(40_000), "y": pa.array(labels), "p": pa.array(parts)})
    return config(data=_PARTS)


@CASES.trains(150, ids=40)
def batch_larger_than_the_log(log: Folder) -> str:
    log.write("a.parquet", clicks(50))
    return config(train="max_steps: 3, epochs: 5").replace("batch_size: 256", "batch_size: 100000000")


def test_the_same_file_twice_doubles_every_part(tmp_path: Path) -> None:
    """Equal rows go to the same part, so that none is trained on and tested."""
    found = []
    for copies in (1, 2):
        (tmp_path / str(copies)).mkdir()
        folder = Folder(tmp_path / str(copies))
        for number in range(copies):
            folder.write(f"{number}.parquet", clicks())
        report = train(folder, config(data=BY_U)).report
        found.append((report["rows"], report["evaluated_rows"]))
    assert found[1] == (2 * found[0][0], 2 * found[0][1])


@pytest.mark.parametrize("kind", [pa.string(), pa.dictionary(pa.int32(), pa.string()), pa.int64(), pa.binary()])
def test_groups_of_one_class_and_null_groups(kind: pa.DataType, tmp_path: Path) -> None:
    groups = [None if i % 7 == 0 else i % 5 for i in range(900)]
    column = pa.array(groups, pa.int64())
    if kind != pa.int64():
        column = pa.array([None if g is None else f"g{g}" for g in groups]).cast(kind)
    folder = Folder(tmp_path)
    folder.write("a.parquet", clicks(900, g=column))
    done = train(folder, config(data=BY_U, evaluate="{group_column: g}"))
    check_trained(Trained(None), done)
    assert 0 <= done.report["gauc"] <= 1


def _baseline(tmp_path: Path, ranks: pa.Array) -> float | None:
    """The AUC of a baseline column on the test part, or None if it is refused with the column's name."""
    folder = Folder(tmp_path)
    folder.write("a.parquet", clicks(900, r=ranks))
    done = train(folder, config(data=BY_U, evaluate="{baseline_columns: [r]}"))
    if done.status:
        assert "column r" in done.errors
        return None
    return float(done.report["baselines"]["r"]["auc"])


def test_nulls_of_a_baseline_rank_nowhere(tmp_path: Path) -> None:
    """The column is the label where it is not null: its AUC over those rows is 1."""
    labels = clicks(900)["y"].to_pylist()
    ranks = pa.array([None if i % 3 == 0 else float(y) for i, y in enumerate(labels)])
    assert _baseline(tmp_path, ranks) == 1.0


def test_a_baseline_of_big_integers_keeps_their_order(tmp_path: Path) -> None:
    """The positives rank above the negatives by one, which float32 and float64 cannot tell."""
    ranks = pa.array([2**60 + y for y in clicks(900)["y"].to_pylist()])
    assert _baseline(tmp_path, ranks) == 1.0


def test_a_baseline_of_text_is_refused(tmp_path: Path) -> None:
    assert _baseline(tmp_path, every(["1", "0"], 900)) is None


@pytest.mark.parametrize(
    "evaluate",
    ['{slices: [{name: s, where: ["nope == 1"]}]}', "{group_column: nope}", "{baseline_columns: [nope]}"],
)
def test_a_missing_column_of_the_evaluation_is_refused_before_training(evaluate: str, tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.write("a.parquet", clicks(900))
    check_refusal(Refused(("nope", "is missing")), train(folder, config(data=BY_U, evaluate=evaluate)))


@CASES.trains(None)
def slice_without_rows(log: Folder) -> str:
    log.write("a.parquet", clicks(900))
    return config(data=BY_U, evaluate='{slices: [{name: s, where: ["u == 1000"]}]}')


@CASES.trains(None)
def names_that_reports_use_themselves(log: Folder) -> str:
    log.write("a.parquet", clicks())
    return config(
        "{name: weight, column: u, table: rows}",
        "{name: lengths, column: u, table: rows}",
        tables=f"[{_TABLE.replace('name: t', 'name: rows')}]",
        labels="[{column: y, name: rows}, {column: y, name: auc}]",
        data=BY_U,
        evaluate='{slices: [{name: auc, where: ["u > 3"]}], group_column: u}',
    )


@CASES.trains(None)
def label_whose_name_has_a_slash(log: Folder) -> str:
    log.write("a.parquet", {**clicks(), "click/1": clicks()["y"]})
    return config(labels='[{column: y}, {column: "click/1"}]', data=BY_U)


def test_tables_whose_names_differ_in_dots_and_case(tmp_path: Path) -> None:
    names = ["a..b", "A", "a", "a."]
    folder = Folder(tmp_path)
    folder.write("a.parquet", clicks())
    features = [f"{{name: f{i}, column: u, table: {name}}}" for i, name in enumerate(names)]
    tables = ", ".join(_TABLE.replace("name: t", f"name: {name}") for name in names)
    report = train(folder, config(*features, tables=f"[{tables}]")).report
    assert {name: report["tables"][name]["rows"] for name in names} == dict.fromkeys(names, 40)


@pytest.mark.slow
def test_one_file_and_two_workers(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.write("a.parquet", clicks(1003))
    text = config(dense="[{column: x}]", data=BY_U)
    one, two = (train(folder, text, "--workers", n).report for n in ("1", "2"))
    assert [two[k] for k in ("rows", "evaluated_rows")] == [one[k] for k in ("rows", "evaluated_rows")]
    assert two["tables"]["t"]["rows"] == one["tables"]["t"]["rows"]


@pytest.mark.parametrize("case", CASES)
def test_parts(case: Case, tmp_path: Path) -> None:
    case.check(tmp_path)

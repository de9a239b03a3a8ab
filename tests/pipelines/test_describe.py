"""What a log suggests: roles of columns, leaks, and a configuration that trains as it is."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

import embtables as et
from embtables.frames.sample import sample_of
from tests.pipelines.conftest import make_table

Command = Callable[..., tuple[int, str, str]]
DATA = os.environ.get("EMBTABLES_DATA")
ROWS = 400


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def column(kind: str) -> Any:
    """A column of each kind that a log has."""
    rng = np.random.default_rng(1)
    n = np.arange(ROWS)
    return {
        "counted up": n % 90,
        "hashed": rng.integers(-(2**62), 2**62, 60)[n % 60],
        "few": n % 7,
        "amount": (rng.lognormal(3, 2, ROWS) * 10).astype(np.int64),
        "float": rng.normal(size=ROWS),
        "tailed float": rng.lognormal(3, 4, ROWS),
        "text": [f"t{i % 40}" for i in n],
        "category": pd.Categorical([f"t{i % 40}" for i in n]),
        "pieces": [f"A{i % 5}|B{i % 3}" for i in n],
        "boolean": n % 3 == 0,
        "list": [[1, 2], [3], []] * (ROWS // 4) + [[4]] * (ROWS - 3 * (ROWS // 4)),
        "list of floats": [[0.5, 1.0]] * ROWS,
        "constant": np.full(ROWS, 7),
        "nulls": pa.nulls(ROWS),
        "row id": n * 3,
        "prose": [f"a long text about the number {i} that nobody would take for an id" for i in n],
        "text times": [f"2026-01-{1 + i % 28:02}T00:00:00" for i in n],
        "struct": pa.array([{"a": 1}] * ROWS),
        "not UTF-8": pa.array([b"\xff%d" % (i % 7) for i in n]).view(pa.string()),
        "half float": rng.normal(size=ROWS).astype(np.float16),
        "views": pa.array([f"t{i % 40}" for i in n], pa.string_view()),
    }[kind]


def table_of(**columns: Any) -> pa.Table:
    label = (np.arange(ROWS) * 7919 % 13 < 5).astype(np.int8)
    made = {"user": np.arange(ROWS) % 50, **columns, "label": label}
    return pa.table({name: pa.array(values) for name, values in made.items()})


@pytest.mark.parametrize(
    ("kind", "role"),
    [
        ("counted up", {"table": "x"}),
        ("hashed", {"table": "x"}),
        ("few", {"table": "x"}),
        ("text", {"table": "x"}),
        ("category", {"table": "x"}),
        ("boolean", {"table": "x"}),
        ("pieces", {"table": "x", "split": "|", "pooling": "mean"}),
        ("list", {"table": "x", "pooling": "mean", "max_length": 50}),
        ("views", {"table": "x"}),
        ("half float", {"transforms": ("standardise",)}),
        ("amount", {"transforms": ("quantile",)}),
        ("float", {"transforms": ("standardise",)}),
        ("tailed float", {"transforms": ("quantile",)}),
        *(
            (kind, None)
            for kind in ("list of floats", "constant", "nulls", "row id", "prose", "text times", "struct", "not UTF-8")
        ),
    ],
)
def test_a_column_gets_its_role(kind: str, role: dict[str, Any] | None) -> None:
    schema = et.Schema.infer(table_of(x=column(kind)), label="label")
    found = [*(f for f in schema.features if f.column == "x"), *(d for d in schema.dense if d.column == "x")]
    assert len(found) == (0 if role is None else 1)
    for each in found:
        assert role is not None
        assert role.items() <= each.model_dump().items()


def test_the_caller_knows_better() -> None:
    table = table_of(few=column("few"), amount=column("amount"), text=column("text"))
    schema = et.Schema.infer(table, label="label", ids=["amount"], numbers="few", ignore=["text"], dim=4)
    assert [f.name for f in schema.features] == ["user", "amount"]
    assert [d.column for d in schema.dense] == ["few"]
    assert {table.dim for table in schema.tables} == {4}


LEAKS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "the same": (lambda y: y, "equals the label"),
    "turned round": (lambda y: 1 - y, "equals the label"),
    "a score of it": (lambda y: y * 10 + np.arange(ROWS) % 3, "separates"),
    "a text for it": (lambda y: [["no", "never", "yes", "sure"][2 * v + i % 2] for i, v in enumerate(y)], "decides"),
    "codes for it": (lambda y: (y * 2 + np.arange(ROWS) % 2) * 5 % 7, "decides"),
    "only with it": (lambda y: [f"t{i}" if v else None for i, v in enumerate(y)], "exactly where the label is 1"),
}


@pytest.mark.parametrize("leak", LEAKS)
def test_what_gives_the_label_away_is_left_out_with_a_warning(leak: str) -> None:
    make, reason = LEAKS[leak]
    table = table_of()
    table = table.append_column("x", pa.array(make(table["label"].to_numpy().astype(np.int64))))
    with pytest.warns(UserWarning, match=f"column 'x' is left out: it .*{reason}"):
        schema = et.Schema.infer(table, label="label")
    assert [f.name for f in schema.features] == ["user"]
    assert schema.dense == ()


def test_an_honest_column_is_no_leak() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        schema = et.Schema.infer(make_table(2000), label="label")
    assert [f.name for f in schema.features] == ["user", "item", "tags"]
    assert [d.column for d in schema.dense] == ["price"]
    assert schema.event_time is not None
    assert schema.event_time.column == "time"


def test_integers_called_a_time_are_one_with_its_unit() -> None:
    seconds = 1_700_000_000 + np.arange(ROWS) * 60
    for unit, factor in (("s", 1), ("ms", 1_000), ("us", 10**6), ("ns", 10**9)):
        time = et.Schema.infer(table_of(created_at=seconds * factor), label="label").event_time
        assert time is not None
        assert (time.column, time.unit) == ("created_at", unit)


def test_names_that_no_feature_may_have_are_replaced() -> None:
    table = table_of().rename_columns(["user id", "label"]).append_column("user/id", pa.array(column("few")))
    schema = et.Schema.infer(table, label="label")
    assert [(f.name, f.column) for f in schema.features] == [("user_id", "user id"), ("user_id_2", "user/id")]
    assert et.train(schema, table, max_steps=2, batch_size=64, shown=False).report()["steps"] == 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: et.Schema.infer(t, label="lable"), "column lable: there is no such column; did you mean 'label'"),
        (lambda t: et.Schema.infer(t, label="user"), "column user: holds 50 values from 0 to 49; give positive_above"),
        (lambda t: et.Schema.infer(t, label="text"), "column text: holds .*string; a label is a number"),
        (lambda t: et.Schema.infer(t, label="ones"), "every row of the label is 1"),
        (lambda t: et.Schema.infer(t, label="label", ids=["usr"]), "did you mean 'user'"),
        (lambda t: et.Schema.infer(t.select(["label", "ones"]), label="label"), "no column can be a feature: ones is"),
        (lambda t: et.Schema.infer(t[:0], label="label"), "holds no rows"),
        (lambda t: et.Schema.infer("nowhere", label="label"), "does not exist"),
        (lambda t: et.Schema.infer(7, label="label"), "which is no table"),
    ],
)
def test_a_mistake_is_one_message(call: Callable[[pa.Table], Any], message: str) -> None:
    table = table_of(text=column("text"), ones=np.ones(ROWS, np.int8))
    with pytest.raises((et.ConfigError, et.DataError), match=message):
        call(table)


def test_a_large_log_is_sampled_alike_every_time(tmp_path: Path) -> None:
    table = pa.table({"n": np.arange(50_000)})
    pq.write_table(table, tmp_path / "log.parquet", row_group_size=1_000)
    for data in (table, str(tmp_path / "log.parquet")):
        first, second = sample_of(data, (), 5_000), sample_of(data, (), 5_000)
        assert first.total_rows == 50_000
        assert 0 < first.table.num_rows <= 5_000
        assert first.table == second.table
        assert first.table["n"][-1].as_py() > 40_000, "from all over the log"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A log in two files, and a side table that lacks its label."""
    place = tmp_path / "my log"
    place.mkdir()
    for part in range(2):
        pq.write_table(make_table(900, seed=part, first=900 * part), place / f"part-{part}.parquet")
    pq.write_table(pa.table({"item": ["item-1"], "colour": ["red"]}), tmp_path / "items.parquet")
    return place


def test_two_commands_from_a_folder_to_a_run(folder: Path, tmp_path: Path, command: Command) -> None:
    status, text, err = command("init", folder, "--label", "label")
    assert (status, err) == (0, "")
    assert "# Suggested from 1,800 rows." in text
    assert "# Label label: 49.17% positive." in text
    (tmp_path / "my.yaml").write_text(text)
    status, out, err = command("train", "my.yaml", "--json", "--set", "train.batch_size=100")
    assert status == 0, err
    report = json.loads(out)
    assert report["auc"] > 0.6
    assert report["run_dir"].startswith("runs/my_log-")


def test_of_a_folder_with_side_tables_the_log_is_the_one_with_the_label(tmp_path: Path, command: Command) -> None:
    pq.write_table(make_table(900), tmp_path / "log.parquet")
    pq.write_table(pa.table({"item": ["item-1"], "colour": ["red"]}), tmp_path / "items.parquet")
    status, text, _ = command("init", ".", "--label", "label")
    assert status == 0
    assert "# Not looked at: items.parquet, which lacks the label" in text
    (tmp_path / "my.yaml").write_text(text)
    assert command("schema", "check", "my.yaml")[0] == 0
    status, _, err = command("data", "describe", ".")
    assert status == 2
    assert "holds several tables (items.parquet, log.parquet)" in err


def test_describe_says_what_a_log_holds(folder: Path, command: Command) -> None:
    table = pq.read_table(folder / "part-0.parquet")
    pq.write_table(table.append_column("clicked", table["label"]), folder / "part-0.parquet")
    (folder / "part-1.parquet").unlink()
    status, out, _ = command("data", "describe", folder, "--label", "label", "--json")
    assert status == 0
    report = json.loads(out)
    assert (report["rows"], report["files"]) == (900, 1)
    assert report["labels"]["label"]["positive_share"] == pytest.approx(np.mean(table["label"].to_numpy()), abs=1e-6)
    assert report["time"] == {"column": "time", "from": "1970-01-01T00:00:00", "to": "1970-01-01T14:59:00"}
    assert report["leaks"] == {"clicked": "equals the label"}
    assert report["columns"]["user"] == {
        **{"type": "int64", "distinct": 40, "nulls": 0, "low": 0, "high": 39, "role": "feature"}
    }
    assert report["columns"]["item"]["role"] == "feature"
    status, out, err = command("data", "describe", folder, "--label", "label")
    assert status == 0
    assert "warning: column 'clicked' equals the label" in err
    assert out == report["schema"]


def test_a_folder_is_read_with_the_columns_of_its_folders(tmp_path: Path, command: Command) -> None:
    for day in (1, 2):
        place = tmp_path / "log" / f"day={day}"
        place.mkdir(parents=True)
        pq.write_table(make_table(300, seed=day), place / "a.parquet")
    status, out, _ = command("data", "describe", "log", "--label", "label", "--json")
    assert status == 0
    assert json.loads(out)["columns"]["day"]["role"] == "feature"


def suggested(command: Command, tmp_path: Path) -> dict[str, Any]:
    """The configuration that `init` suggests for the folder `log`, which is checked and trained."""
    status, text, err = command("init", "log", "--label", "label")
    assert status == 0, err
    (tmp_path / "my.yaml").write_text(text)
    for arguments in (("schema", "check", "my.yaml"), ("train", "my.yaml", "--set", "train.max_steps=2")):
        status, _, err = command(*arguments)
        assert status == 0, err
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def test_files_may_differ_in_types_as_for_the_reader(tmp_path: Path, command: Command) -> None:
    first, second = make_table(300), make_table(300, seed=1, first=300)
    second = (
        second.set_column(1, "user", second.column("user").cast(pa.uint64()))
        .set_column(2, "item", second.column("item").cast(pa.string_view()))
        .set_column(3, "tags", second.column("tags").cast(pa.large_list(pa.int16())))
        .set_column(6, "time", second.column("time").cast(pa.timestamp("ns", "Asia/Tokyo")))
    )
    (tmp_path / "log").mkdir()
    for number, table in enumerate((first, second)):
        pq.write_table(table, tmp_path / "log" / f"{number}.parquet")
    found = suggested(command, tmp_path)
    assert {each["name"] for each in found["features"]} == {"user", "item", "tags"}
    assert found["event_time"] == {"column": "time"}


def test_what_cannot_be_one_column_is_left_out_and_said(tmp_path: Path, command: Command) -> None:
    first, second = make_table(300), make_table(300, seed=1, first=300)
    second = second.set_column(2, "item", pa.array(range(300))).drop_columns(["tags"])
    (tmp_path / "log").mkdir()
    for number, table in enumerate((first, second)):
        pq.write_table(table, tmp_path / "log" / f"{number}.parquet")
    found = suggested(command, tmp_path)
    assert {each["name"] for each in found["features"]} == {"user", "tags"}
    assert found["data"]["on_missing_column"] == "null", "the second file has no tags"
    assert "Left out: item holds int64, but string in" in (tmp_path / "my.yaml").read_text()


def test_values_of_folders_are_text_as_for_the_reader(tmp_path: Path, command: Command) -> None:
    for shop in ("01", "1", "__HIVE_DEFAULT_PARTITION__", "x%20y"):
        (tmp_path / "log" / f"shop={shop}").mkdir(parents=True)
        pq.write_table(make_table(200, seed=len(shop)), tmp_path / "log" / f"shop={shop}" / "0.parquet")
    table = sample_of(tmp_path / "log").table
    assert table.column("shop").unique().to_pylist() == ["01", "1", None, "x y"]
    assert "shop" in {each["name"] for each in suggested(command, tmp_path)["features"]}


def test_a_log_of_lists_alone_is_not_divided(tmp_path: Path, command: Command) -> None:
    (tmp_path / "log").mkdir()
    pq.write_table(make_table(300).select(["tags", "label"]), tmp_path / "log" / "0.parquet")
    assert "split" not in suggested(command, tmp_path)["data"]
    assert "# No column divides the rows" in (tmp_path / "my.yaml").read_text()


def test_times_beyond_pythons_calendar_are_described(tmp_path: Path, command: Command) -> None:
    table = make_table(300)
    far = pa.array([2**31 - 1, *range(299)], pa.int32()).view(pa.date32())
    pq.write_table(table.append_column("day", far), tmp_path / "log.parquet")
    status, out, err = command("data", "describe", "log.parquet", "--label", "label", "--json")
    assert status == 0, err
    assert json.loads(out)["columns"]["day"]["type"] == "date32[day]"


def test_a_label_of_nulls_is_refused_as_that(tmp_path: Path, command: Command) -> None:
    table = make_table(300)
    pq.write_table(table.set_column(5, "label", pa.nulls(300, pa.int8())), tmp_path / "log.parquet")
    status, _, err = command("init", "log.parquet", "--label", "label")
    assert status == 1
    assert "label: holds nulls alone" in " ".join(err.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("init", "log.parquet"), "a run needs a label: --label COLUMN. There are columns of 0 and 1: label"),
        (
            ("init", "rated"),
            "0 and 1: bought; and columns of a few numbers, with --positive-above: stars (1.0 to 5.0)",
        ),
        (("init", "bought.parquet"), "a log of purchases has no label, and data.prepare makes examples of it"),
        (("init", "broken.parquet"), "cannot be read as parquet"),
        (("init", "log.parquet", "--label", "clik"), "no file has the label 'clik'; there are: item, label"),
        (("data", "describe", "nowhere"), "does not exist"),
        (("data", "describe", "broken.parquet"), "cannot be read as parquet"),
        (("data", "describe", "log.parquet", "--ignore", "usr"), "did you mean 'user'"),
    ],
)
def test_a_mistake_on_the_command_line(
    arguments: tuple[str, ...], message: str, tmp_path: Path, command: Command
) -> None:
    pq.write_table(make_table(100), tmp_path / "log.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"no parquet")
    (tmp_path / "rated").mkdir()
    stars = {"stars": [1.0, 5.0] * 50, "bought": [True, False] * 50, "kind": [2**40, 1] * 50, "user": range(100)}
    pq.write_table(pa.table(stars), tmp_path / "rated" / "log.parquet")
    pq.write_table(pa.table({"item": range(9), "name": ["a"] * 9}), tmp_path / "rated" / "items.parquet")
    pq.write_table(pa.table({"user": range(100), "item": range(100)}), tmp_path / "bought.parquet")
    status, out, err = command(*arguments)
    assert status in (1, 2)
    assert out == ""
    assert message in " ".join(err.split())
    assert "Traceback" not in err


@pytest.mark.slow
@pytest.mark.skipif(DATA is None, reason="needs logs that may not be shipped: EMBTABLES_DATA, a folder with ml1m/")
@pytest.mark.parametrize(
    ("log", "options"),
    [
        ("ml1m", ("--label", "rating", "--positive-above", "3")),
        ("ml100k", ("--label", "rating", "--positive-above", "3")),
        ("criteo_1tb_80k", ("--label", "label")),
        ("open_bandit_small", ("--label", "click")),
    ],
)
def test_two_commands_on_real_logs(log: str, options: tuple[str, ...], tmp_path: Path, command: Command) -> None:
    status, text, err = command("init", f"{DATA}/{log}", *options)
    assert status == 0, err
    (tmp_path / "my.yaml").write_text(text)
    status, out, err = command("train", "my.yaml", "--json", "--set", "train.max_steps=15")
    assert status == 0, err
    assert 0.0 < json.loads(out)["auc"] < 1.0, "both classes were evaluated; 15 steps promise no more"

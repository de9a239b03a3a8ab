"""Predictions: a row of the output for each row of the input, whole or not at all, whatever the input is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import embtables as et
from embtables.errors import BadFileError, ConfigError, DataError, StateError
from embtables.pipelines.call.runs import predict
from embtables.pipelines.config import RunConfig
from embtables.pipelines.training.train import train
from embtables.schema import validate
from tests.pipelines.conftest import content, make_table


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that reads a side table, sets bad rows aside in training, and scores 100 rows at a time."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "log").mkdir()
    pq.write_table(make_table(600), folder / "log" / "a.parquet")
    pq.write_table(pa.table({"user": range(40), "town": ["Ulm", None] * 20}), folder / "users.parquet")
    made = content(folder / "log", folder / "runs")
    made["data"] |= {
        "join": [{"path": str(folder / "users.parquet"), "key": "user", "on_missing": None}],
        "on_bad_row": "quarantine",
        "on_bad_file": "quarantine",
        "where": ["user < 30"],
    }
    made["features"].append({"name": "town", "table": "item"})
    made["train"] |= {"epochs": 1}
    made["evaluate"] = {"batch_size": 100}
    return Path(train(validate(RunConfig, made), shown=False)["run_dir"])


def written(folder: Path, *tables: pa.Table, row_group_size: int = 70) -> Path:
    folder.mkdir(exist_ok=True)
    for number, table in enumerate(tables):
        pq.write_table(table, folder / f"{number}.parquet", row_group_size=row_group_size)
    return folder


def score(trained: Path, source: Path, output: Path, **options: Any) -> tuple[dict[str, Any], pa.Table]:
    report = predict(trained, source, output, shown=False, **options)
    return report, pq.read_table(output)


def test_each_row_has_its_row_whatever_the_files(trained: Path, tmp_path: Path) -> None:
    table = make_table(450, seed=3)
    _, whole = score(trained, written(tmp_path / "one", table), tmp_path / "one.parquet")
    assert whole.schema.names == [*table.schema.names, "score"]
    assert whole.column("score").null_count == 0
    pieces = [table.slice(0, 130), table.slice(130, 0), table.slice(130, 1), table.slice(131)]
    changed = [
        pieces[0].set_column(1, "user", pieces[0].column("user").cast(pa.int16())),
        pieces[1],
        pieces[2].set_column(2, "item", pieces[2].column("item").dictionary_encode()),
        pieces[3].select(list(reversed(table.schema.names))),
    ]
    report, parts = score(trained, written(tmp_path / "many", *changed), tmp_path / "many.parquet")
    assert report == {
        "rows": 450,
        "unscored_rows": 0,
        "output": str(tmp_path / "many.parquet"),
        "columns": [*table.schema.names, "score"],
        "warnings": [],
    }
    for name in table.schema.names:
        assert parts.column(name).to_pylist() == table.column(name).to_pylist()
    assert np.allclose(parts.column("score"), whole.column("score"), atol=1e-6)


def test_carried_columns_are_those_asked_for_in_that_order_joined_ones_too(trained: Path, tmp_path: Path) -> None:
    table = make_table(150, seed=4)
    source = written(tmp_path / "in", table)
    _, scores = score(trained, source, tmp_path / "a.parquet", columns=["town", "row", "user"])
    assert scores.schema.names == ["town", "row", "user", "score"]
    assert scores.column("row").to_pylist() == table.column("row").to_pylist()
    towns = [("Ulm", None)[user % 2] for user in scores.column("user").to_pylist()]
    assert scores.column("town").to_pylist() == towns
    _, alone = score(trained, source, tmp_path / "b.parquet", columns=[])
    assert alone.schema.names == ["score"]
    assert alone.column("score").equals(scores.column("score"))
    with pytest.raises(ConfigError, match=r"columns \(--columns\) names 'row' twice"):
        score(trained, source, tmp_path / "c.parquet", columns=["row", "user", "row"])
    with pytest.raises(DataError, match="column nope: is missing"):
        score(trained, source, tmp_path / "c.parquet", columns=["nope"])
    assert not list(tmp_path.glob("*c.parquet*"))


def bad_table(bad: list[int], rows: int = 450) -> pa.Table:
    table = make_table(rows, seed=5)
    prices = table.column("price").to_numpy().copy()
    prices[bad[::2]] = np.nan
    prices[bad[1::2]] = -3.0  # log1p has no value
    return table.set_column(4, "price", pa.array(prices))


@pytest.mark.parametrize("bad", [[0], [449], [5, 6, 7, 131, 132, 300], list(range(100, 200)), list(range(450))])
def test_a_bad_row_is_an_error_with_its_place_or_has_no_score(trained: Path, tmp_path: Path, bad: list[int]) -> None:
    table = bad_table(bad)
    source = written(tmp_path / "in", table.slice(0, 131), table.slice(131, 100), table.slice(231))
    file, row = next((n, bad[0] - first) for n, first in ((2, 231), (1, 131), (0, 0)) if bad[0] >= first)
    with pytest.raises(
        DataError, match=rf"file .*{file}.parquet, column price, row {row}: holds .* --on-bad-row null$"
    ):
        score(trained, source, tmp_path / "error.parquet")
    assert not list(tmp_path.glob("*error*"))
    report, scores = score(trained, source, tmp_path / "null.parquet", on_bad_row="null", columns=["row", "town"])
    assert (report["rows"], report["unscored_rows"]) == (450, len(bad))
    assert scores.column("row").to_pylist() == table.column("row").to_pylist()
    assert np.flatnonzero(scores.column("score").is_null()).tolist() == bad
    good = written(tmp_path / "good", table.take(pa.array([n for n in range(450) if n not in bad], pa.int64())))
    if len(bad) < 450:
        _, expected = score(trained, good, tmp_path / "good.parquet", columns=["row", "town"])
        assert np.allclose(scores.column("score").drop_null(), expected.column("score"), atol=1e-6)
        rest = scores.filter(scores.column("score").is_valid())
        assert rest.column("row").to_pylist() == expected.column("row").to_pylist()
        assert rest.column("town").to_pylist() == expected.column("town").to_pylist()


def test_a_damaged_file_is_never_left_out(trained: Path, tmp_path: Path) -> None:
    source = written(tmp_path / "in", make_table(50), make_table(50))
    (source / "1.parquet").write_text("no parquet at all")
    with pytest.raises(BadFileError, match=r"file .*1.parquet: cannot be read as parquet"):
        score(trained, source, tmp_path / "out.parquet")


def test_unknown_choices_are_refused(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="argument on_bad_row: must be one of error, null, received 'quarantine'"):
        score(trained, tmp_path, tmp_path / "out.parquet", on_bad_row="quarantine")


def test_a_column_named_score_must_be_left_out(trained: Path, tmp_path: Path) -> None:
    table = make_table(50).append_column("score", pa.array([1.0] * 50))
    source = written(tmp_path / "in", make_table(50), table)
    with pytest.raises(
        ConfigError, match=r"has a column 'score' already; choose the carried ones with columns \(--columns\)"
    ):
        score(trained, source, tmp_path / "out.parquet")
    assert score(trained, source, tmp_path / "out.parquet", columns=["row"])[0]["rows"] == 100


def test_inputs_that_are_none(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.parquet").write_text("hello")
    none = written(tmp_path / "none", make_table(1).slice(0, 0))
    for source in (tmp_path / "empty", tmp_path / "text.parquet", none, tmp_path / "missing"):
        with pytest.raises(DataError):
            score(trained, source, tmp_path / "out.parquet")
    assert not list(tmp_path.glob("*out.parquet*"))


def test_outputs_that_cannot_be_are_refused_before_anything_is_read(trained: Path, tmp_path: Path) -> None:
    source = written(tmp_path / "in", make_table(50))
    before = (source / "0.parquet").read_bytes()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link.parquet").symlink_to(source / "0.parquet")
    for output, message in (
        (tmp_path / "in", "is a folder; name the parquet file to write"),
        (tmp_path / "pipe", "is not a file; name the parquet file to write"),
        (tmp_path / "nowhere" / "a.parquet", "lies in a folder that does not exist; make it first"),
        (source / "0.parquet", "is a part of the input .*in; write it elsewhere"),
        (tmp_path / "link.parquet", "is a part of the input .*in; write it elsewhere"),
    ):
        with pytest.raises(ConfigError, match=message):
            score(trained, source, output)
    with pytest.raises(ConfigError, match="is a part of the input"):
        score(trained, source / "0.parquet", source / "0.parquet")
    assert (source / "0.parquet").read_bytes() == before
    assert (tmp_path / "pipe").is_fifo()
    assert [path.name for path in source.iterdir()] == ["0.parquet"]


def test_a_full_disk_leaves_nothing_and_the_former_output(
    trained: Path, tmp_path: Path, small_disk: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = written(tmp_path / "in", *(make_table(2_000, seed=n) for n in range(20)), row_group_size=500)
    output = small_disk / "scores.parquet"
    output.write_text("the former one")
    with pytest.raises(StateError, match=r"cannot write the scores: .*No space left on device"):
        score(trained, source, output)
    assert [path.name for path in small_disk.iterdir()] == ["scores.parquet"]
    assert output.read_text() == "the former one"
    assert "Exception ignored" not in capfd.readouterr().err


def test_a_killed_prediction_leaves_no_output(trained: Path, tmp_path: Path) -> None:
    source = written(tmp_path / "in", *(make_table(500, seed=n) for n in range(3)))
    output = tmp_path / "scores.parquet"
    code = f"""
import os, signal
from embtables.pipelines.call.runs import predict
from embtables.pipelines.whole_parquet import WholeParquet
write, count = WholeParquet.write, []
def killed(self, table):
    write(self, table)
    count.append(table.num_rows)
    if len(count) == 5:
        os.kill(os.getpid(), signal.SIGKILL)
WholeParquet.write = killed
predict({str(trained)!r}, {str(source)!r}, {str(output)!r}, shown=False)
"""
    done = subprocess.run([sys.executable, "-c", code], env=os.environ, check=False)
    assert done.returncode == -signal.SIGKILL
    assert not output.exists()
    # What is left under a hidden name is no data to any reader, and nothing in the way of the next call.
    assert all(path.name.startswith(".") for path in tmp_path.glob("*scores.parquet*"))
    assert score(trained, source, output)[0]["rows"] == 1500


def test_the_command_scores_and_says_what_is_wrong(trained: Path, tmp_path: Path, command: Any) -> None:
    source = written(tmp_path / "in", bad_table([3]))
    output = tmp_path / "out.parquet"
    status, _, err = command("predict", trained, source, output)
    assert status == 1
    assert "row 3" in err
    assert "Traceback" not in err
    status, out, _ = command("predict", trained, source, output, "--on-bad-row", "null", "--columns", "", "--json")
    assert status == 0
    assert '"unscored_rows": 1' in out
    assert command("predict", trained, source, output, "--on-bad-row", "skip")[0] == 2
    assert command("predict", tmp_path, source, output)[0] == 2


def test_a_run_in_memory_finds_its_side_tables_whatever_it_predicts(tmp_path: Path) -> None:
    """Their paths are relative to the log that it was trained on."""
    log = written(tmp_path / "log", make_table(300))
    pq.write_table(pa.table({"user": range(40), "town": ["Ulm", "Bonn"] * 20}), tmp_path / "users.parquet")
    made = content(log, tmp_path / "runs")
    made["data"]["join"] = [{"path": "../users.parquet", "key": "user"}]
    made["features"].append({"name": "town", "table": "item"})
    del made["train"]["runs_dir"]
    run = et.train(made, shown=False)
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    others = written(tmp_path / "elsewhere" / "deep" / "log", make_table(50, seed=1))
    assert run.predict(others, tmp_path / "scores.parquet", shown=False)["rows"] == 50
    assert run.predict(make_table(50, seed=1), shown=False).column("score").null_count == 0


def test_a_column_that_folders_gave_may_lie_in_the_files(tmp_path: Path) -> None:
    """`data.partitions` says how folders were read; what is scored need not have them."""
    for shop in ("01", "2"):
        (tmp_path / "log" / f"shop={shop}").mkdir(parents=True)
        pq.write_table(make_table(150, seed=int(shop)), tmp_path / "log" / f"shop={shop}" / "0.parquet")
    made = content(tmp_path / "log", tmp_path / "runs")
    made["data"]["partitions"] = {"shop": "int64"}
    made["features"].append({"name": "shop", "table": "item"})
    folder = Path(train(validate(RunConfig, made), shown=False)["run_dir"])
    whole = [make_table(150, seed=shop).append_column("shop", pa.array([shop] * 150)) for shop in (1, 2)]
    _, of_folders = score(folder, tmp_path / "log", tmp_path / "folders.parquet")
    _, of_columns = score(folder, written(tmp_path / "plain", *whole), tmp_path / "columns.parquet")
    assert of_columns.column("score").equals(of_folders.column("score"))


def test_a_type_declared_for_what_no_folder_gives_is_refused_before_training(tmp_path: Path) -> None:
    made = content(written(tmp_path / "log", make_table(100)), tmp_path / "runs")
    made["data"]["partitions"] = {"shop": "int64"}
    with pytest.raises(ConfigError, match="'shop', which the log's folders do not give"):
        train(validate(RunConfig, made), shown=False)

"""`et.train` on rows in memory: the figures of the same rows in a file, nothing written, errors that name columns."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

import embtables as et
from embtables.pipelines.sources import memory
from tests.pipelines.conftest import content, make_table

DATA = os.environ.get("EMBTABLES_DATA")
MOVIELENS = Path(__file__).parents[2] / "examples" / "movielens" / "dcnv2.yaml"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def configuration() -> dict[str, Any]:
    """The small log's, without a path and a folder for runs."""
    made = content(Path("unused"), Path("unused"))
    del made["data"]["path"], made["train"]["runs_dir"]
    return made


@pytest.fixture(scope="module")
def rows() -> pa.Table:
    return make_table(1500)


@pytest.fixture(scope="module")
def frame(rows: pa.Table) -> pd.DataFrame:
    return rows.to_pandas()


@pytest.fixture(scope="module")
def run(frame: pd.DataFrame) -> et.Run:
    return et.train(configuration(), frame, shown=False)


def test_a_data_frame_has_the_figures_of_its_parquet_file(
    run: et.Run, frame: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame.to_parquet(tmp_path / "log.parquet")
    made = configuration()
    made["data"]["path"] = "log.parquet"
    of_file = et.train(made, shown=False)
    assert run.metrics == of_file.metrics
    assert run.metrics["auc"] > 0.75
    assert run.table("user").to_arrow() == of_file.table("user").to_arrow()
    assert [line["loss"] for line in run.history if "loss" in line] == [
        line["loss"] for line in of_file.history if "loss" in line
    ]


def test_several_row_groups_of_a_frame_are_those_of_the_file(
    frame: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "ROW_GROUP_ROWS", 400)
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), tmp_path / "log.parquet", row_group_size=400)
    made = configuration()
    made["data"]["path"] = "log.parquet"
    assert et.train(configuration(), frame, shown=False).metrics == et.train(made, shown=False).metrics


@pytest.mark.parametrize(
    "given",
    [
        lambda rows: rows,
        lambda rows: rows.combine_chunks().to_batches()[0],
        pa.dataset.dataset,
        lambda rows: pa.RecordBatchReader.from_batches(rows.schema, rows.to_batches()),
        pl.from_arrow,
        lambda rows: dict(zip(rows.column_names, rows.columns, strict=True)),
    ],
    ids=["table", "batch", "dataset", "reader", "polars", "dictionary"],
)
def test_rows_may_be_what_users_have(given: Callable[[pa.Table], Any], run: et.Run, rows: pa.Table) -> None:
    assert et.train(configuration(), given(rows), shown=False).metrics == run.metrics


def test_nothing_is_written_without_a_folder_for_runs(run: et.Run, frame: pd.DataFrame, tmp_path: Path) -> None:
    done = et.train(configuration(), frame, max_steps=5, early_stopping={"patience": 1}, shown=False)
    assert done.path is None
    assert done.report()["run_dir"] is None
    assert list(tmp_path.iterdir()) == []


def test_with_a_folder_the_run_is_resumed_and_loaded(run: et.Run, frame: pd.DataFrame) -> None:
    short = et.train(configuration(), frame, runs_dir="runs", epochs=1, shown=False)
    assert short.path is not None
    with pytest.raises(et.ConfigError, match=r"were in memory .* give them again: data="):
        et.resume(short.path, overrides=["train.epochs=2"], shown=False)
    resumed = et.resume(short.path, frame, overrides=["train.epochs=2"], shown=False)
    assert resumed.metrics == run.metrics
    loaded = et.load(short.path)
    assert loaded.metrics == run.metrics
    assert loaded.history[-1]["step"] == run.history[-1]["step"]
    pd.testing.assert_frame_equal(loaded.predict(frame, shown=False), run.predict(frame, shown=False))
    assert et.evaluate(loaded, data=frame)["rows"] == len(frame)


def test_a_run_goes_on_with_the_same_values_alone(run: et.Run, frame: pd.DataFrame) -> None:
    short = et.train(configuration(), frame, runs_dir="runs", max_steps=3, shown=False)
    changed = frame.assign(price=frame["price"].where(frame["row"] != 700, 1.5))
    assert changed.memory_usage().equals(frame.memory_usage())
    with pytest.raises(et.StateError, match=r"<DataFrame> had 1,500 rows .* has other values in column price\."):
        et.resume(short, changed, overrides=["train.max_steps=null"], shown=False)
    with pytest.raises(et.StateError, match="has other values in columns item, label, price and 4 more"):
        et.resume(short, frame.iloc[::-1], overrides=["train.max_steps=null"], shown=False)
    again = pd.concat([frame.iloc[:100], frame.iloc[100:]]).assign(later=1)  # what is not read may be added
    resumed = et.resume(short, again, overrides=["train.max_steps=null"], shown=False)
    assert resumed.metrics == run.metrics


def test_the_best_state_is_the_one_that_a_run_in_memory_ends_with(frame: pd.DataFrame) -> None:
    made = configuration()
    made["train"] |= {"epochs": 6, "dense_optimizer": {"learning_rate": 0.05}}
    in_memory = et.train(made, frame, shown=False)
    with_folder = et.train(made, frame, runs_dir="runs", shown=False)
    best = in_memory.report()["best_step"]
    assert best is not None
    assert best < in_memory.report()["steps"], "the test is about a best state that is not the last"
    assert in_memory.step == with_folder.step == best
    assert in_memory.metrics == with_folder.metrics
    assert in_memory.table("item").to_arrow() == et.load(str(with_folder.path)).table("item").to_arrow().select(
        in_memory.table("item").to_arrow().column_names
    )


@pytest.mark.parametrize("where", ["memory", "folder"])
def test_ids_of_another_type_than_in_training_are_told(
    where: str, frame: pd.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    made = configuration()
    made["features"][0]["encoder"] = {"kind": "hash"}
    run = et.train(made, frame, runs_dir="runs" if where == "folder" else None, max_steps=5, shown=False)
    other = frame.assign(user=frame["user"].astype(str))
    warning = "feature user: column user holds strings here, but integers in training"
    assert any(text.startswith(warning) for text in run.evaluate(data=other, shown=False)["warnings"])
    capsys.readouterr()
    run.predict(frame)
    assert "warning" not in capsys.readouterr().err
    run.predict(other)
    assert f"warning: {warning}" in capsys.readouterr().err


def test_predictions_keep_the_kind_of_frame_its_order_and_index(run: et.Run, frame: pd.DataFrame) -> None:
    some = frame.sample(50, random_state=1)
    scored = run.predict(some, columns=["user"], shown=False)
    assert list(scored.columns) == ["user", "score"]
    assert scored.index.equals(some.index)
    alone = run.predict(some[["user", "item", "tags", "price"]].head(1), shown=False)
    np.testing.assert_allclose(alone["score"], scored["score"].head(1), atol=1e-6)
    of_polars = run.predict(pl.from_pandas(some), columns=["user"], shown=False)
    assert isinstance(of_polars, pl.DataFrame)
    assert of_polars["score"].to_list() == scored["score"].tolist()
    assert run.predict(pa.Table.from_pandas(some), shown=False)["score"].to_pylist() == scored["score"].tolist()


def test_a_row_without_meaning_is_an_error_or_has_no_score(run: et.Run, rows: pa.Table) -> None:
    prices = [float("inf") if n == 7 else value for n, value in enumerate(rows["price"].to_pylist())]
    table = rows.set_column(rows.column_names.index("price"), "price", pa.array(prices)).slice(0, 20)
    with pytest.raises(et.DataError, match="<DataFrame>, column price, row 7"):
        run.predict(table, shown=False)
    scores = run.predict(table, on_bad_row="null", shown=False)["score"].to_pylist()
    assert [n for n, score in enumerate(scores) if score is None] == [7]
    whole = run.predict(rows.slice(0, 20), shown=False)["score"].to_pylist()
    assert scores[8:] == pytest.approx(whole[8:], abs=1e-6)


def test_bad_rows_are_set_aside_without_a_folder(rows: pa.Table, tmp_path: Path) -> None:
    prices = [float("inf") if n < 9 else value for n, value in enumerate(rows["price"].to_pylist())]
    table = rows.set_column(rows.column_names.index("price"), "price", pa.array(prices))
    made = configuration()
    made["data"]["on_bad_row"] = "quarantine"
    made["train"]["epochs"] = 1
    run = et.train(made, table, shown=False)
    assert 0 < run.report()["quarantined_rows"] <= 9
    assert any("quarantined" in line for line in run.history)
    assert list(tmp_path.iterdir()) == []


def test_parts_may_be_given_apart(frame: pd.DataFrame) -> None:
    made = configuration()
    del made["data"]
    parts = {"train": frame[:1000], "validation": frame[1000:1200], "test": frame[1200:]}
    run = et.train(made, parts, shown=False)
    assert run.report()["rows"] == 2 * 1000
    assert run.metrics["evaluated_rows"] == 300
    assert run.evaluate("validation", shown=False)["rows"] == 200
    assert run.evaluate(data=frame[1200:], shown=False)["auc"] == run.metrics["auc"]
    del parts["test"]
    assert et.train(made, parts, max_steps=2, shown=False).report()["part"] == "validation"


def test_a_schema_alone_gets_a_split_by_its_ids_and_a_model(frame: pd.DataFrame) -> None:
    made = configuration()
    schema = {name: made[name] for name in ("tables", "features", "labels", "dense")}
    run = et.train(schema, frame, shown=False)
    assert run.config.data.split is not None
    assert run.config.data.split.model_dump()["columns"] == ("user", "item")
    assert run.config.model.kind == "dcnv2"
    everything = et.train(schema, frame, split=None, model="lr", shown=False)
    assert everything.report()["rows"] == len(frame)
    assert everything.config.model.kind == "lr"
    assert everything.metrics["auc"] is None


def test_rows_of_a_table_have_the_ids_of_the_frame(run: et.Run, frame: pd.DataFrame) -> None:
    made = configuration()
    made["tables"] = [{**each, "num_rows": None, "kind": "collisionless"} for each in made["tables"]]
    made["tables"] = [{k: v for k, v in each.items() if v is not None} for each in made["tables"]]
    made["features"] = made["features"][:2]
    grown = et.train(made, frame, max_steps=20, shown=False)
    item = grown.table("item").to_pandas()
    assert set(item["id"]) <= set(frame["item"])
    assert len(item) > 20
    first = item.iloc[0]
    embedded = grown.scorer.embed("item", [first["id"]])[0].tolist()
    assert first[[f"weight_{n}" for n in range(8)]].tolist() == embedded
    assert set(grown.table("user").to_pandas()["id"]) <= set(frame["user"])
    assert "id" not in run.table("item").to_pandas().columns, "ids share rows: none is known"
    assert len(run.table("item")) == 64


def test_ids_that_are_bytes_have_names_where_they_are_text(frame: pd.DataFrame) -> None:
    made = configuration()
    names = [b"\xff" + name.encode() if number % 2 else name.encode() for number, name in enumerate("abcdefgh")]
    rows = pa.Table.from_pandas(frame, preserve_index=False)
    coded = pa.array([names[n % 8] for n in range(len(frame))], pa.binary())
    made["features"] = [{"name": "code", "column": "code", "table": "user"}]
    made["tables"] = [{"name": "user", "dim": 4, "optimizer": {"kind": "sgd", "learning_rate": 0.1}}]
    found = et.train(made, rows.append_column("code", coded), shown=False).table("user").to_pandas()
    assert sorted(found["id"].dropna()) == ["a", "c", "e", "g"]
    assert len(found) == 8


def test_ids_of_a_feature_that_keeps_its_keys_apart_are_those_of_the_frame(frame: pd.DataFrame) -> None:
    made = configuration()
    user, item = ({"name": each, "table": "both", "encoder": {"kind": "hash"}} for each in ("user", "item"))
    table = {"name": "both", "kind": "collisionless", **{k: made["tables"][0][k] for k in ("dim", "optimizer")}}
    for features, known in (([user], True), ([user, item], False)):
        made |= {"features": features, "tables": [{**table, "share_ids": False}], "evaluate": {}}
        rows = et.train(made, frame, max_steps=5, shown=False).table("both").to_pandas()
        assert ("id" in rows.columns) == known
        if known:
            assert set(rows["id"]) <= set(frame["user"])


def test_string_views_divide_rows_and_name_ids_as_strings_do(rows: pa.Table) -> None:
    optimizer = {"kind": "adagrad", "learning_rate": 0.1}
    schema = {
        "tables": [{"name": "item", "dim": 8, "optimizer": optimizer}],
        "features": [{"name": "item", "table": "item"}],
        "labels": [{"column": "label"}],
    }
    views = rows.set_column(rows.column_names.index("item"), "item", rows["item"].cast(pa.string_view()))
    found = [et.train(schema, given, shown=False) for given in (rows, views)]
    assert found[1].metrics == found[0].metrics
    assert found[1].table("item").to_arrow() == found[0].table("item").to_arrow()
    assert set(found[1].table("item").to_arrow()["id"].to_pylist()) <= set(rows["item"].to_pylist())


MISTAKES: dict[str, tuple[Callable[[pd.DataFrame], Any], str]] = {
    "a column is missing": (lambda df: df.rename(columns={"user": "usr"}), "<DataFrame>, column user: is missing"),
    "a bad label": (
        lambda df: df.assign(label=df["label"].where(df.index != 7, 5)),
        "<DataFrame>, column label, row 7: holds the label 5",
    ),
    "a number": (lambda df: 7, "is int, which is no table"),
    "a list": (lambda df: [1, 2], "is list, which is no table"),
    "a lazy frame": (lambda df: pl.from_pandas(df).lazy(), "which is no table"),
    "a column of objects": (lambda df: df.assign(user=[object()] * len(df)), "column user"),
    "two columns of one name": (lambda df: pd.concat([df, df], axis=1), "Duplicate column names"),
    "a column by number": (lambda df: df.rename(columns={"row": 0}), "names of columns must be strings"),
    "no rows": (lambda df: df[:0], "holds no rows"),
    "columns that differ in length": (lambda df: {"user": [1, 2], "item": [3]}, "cannot be taken as a table"),
    "no train part": (lambda df: {"validation": df}, "but no 'train'"),
    "a path that is not there": (lambda df: "nowhere", "does not exist"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_rows_is_one_message(mistake: str, frame: pd.DataFrame, tmp_path: Path) -> None:
    broken, message = MISTAKES[mistake]
    made = configuration()
    del made["data"]["split"]
    with pytest.raises((et.DataError, et.ConfigError)) as raised:
        et.train(made, broken(frame), split=None, shown=False)
    assert message in str(raised.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda run, df: run.table("itme"), "there are: user, item"),
        (lambda run, df: run.evaluate("tset"), "received 'tset'"),
        (lambda run, df: run.predict("log.parquet"), "needs 'output'"),
        (lambda run, df: run.predict(df, "scores.parquet"), "'output' goes with the path"),
        (lambda run, df: run.predict(df, columns=["usr"]), "no column 'usr'"),
        (lambda run, df: run.predict(df.assign(score=1.0)), "a column 'score' already"),
        (lambda run, df: run.predict(df[["user"]], shown=False), "column item: is missing"),
        (lambda run, df: run.predict(df[:0]), "no rows to score"),
        (lambda run, df: et.resume(run), "no folder to go on from"),
        (lambda run, df: et.load(run), "no folder to go on from"),
        (lambda run, df: run.predict(df, columns="user"), "argument columns: must be a list of names, received 'user'"),
        (lambda run, df: et.train(configuration(), df, workers="2"), "received '2'"),  # type: ignore[arg-type]
        (lambda run, df: et.train(configuration(), df, split="time"), "received 'time'"),  # type: ignore[arg-type]
        (lambda run, df: et.train(configuration(), df, model="dcn"), "must be one of"),
        (lambda run, df: et.train(configuration(), df, evaluate=3), "received 3"),  # type: ignore[arg-type]
    ],
)
def test_a_mistake_in_a_call_is_one_message(
    call: Callable[[et.Run, pd.DataFrame], Any], message: str, run: et.Run, frame: pd.DataFrame
) -> None:
    with pytest.raises((et.DataError, et.ConfigError), match=message):
        call(run, frame)


@pytest.mark.slow
@pytest.mark.skipif(DATA is None, reason="MovieLens may not be shipped; set EMBTABLES_DATA to a folder with ml1m/")
def test_movielens_as_a_frame_has_the_figures_of_its_file() -> None:
    options: dict[str, Any] = {"max_steps": 30, "shown": False}
    of_file = et.train(MOVIELENS, overrides=[f"data.path={DATA}/ml1m"], **options)
    joins = {f"data.join.{place}.path={DATA}/ml1m/{name}.parquet" for place, name in enumerate(("users", "movies"))}
    ratings = pd.read_parquet(f"{DATA}/ml1m/ratings.parquet")
    of_frame = et.train(MOVIELENS, ratings, overrides=sorted(joins), **options)
    assert of_frame.metrics == of_file.metrics
    assert of_frame.metrics["auc"] > 0.7

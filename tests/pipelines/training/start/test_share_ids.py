"""Features of one table share the rows of equal ids, or do not, as the table says; who said nothing is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embtables.errors import ConfigError, StateError
from embtables.pipelines.config import RunConfig, load_config
from embtables.pipelines.run_dir import RunDir
from embtables.pipelines.training.start.shared_values import shared_values
from embtables.pipelines.training.train import resume, train
from embtables.schema import Schema, to_yaml, validate
from tests.pipelines.conftest import log_dir, make_config

__all__ = ["log_dir", "make_config"]
Make = Callable[..., RunConfig]


def schema_of(table: dict[str, Any], *features: dict[str, Any]) -> Schema:
    learns = {"name": "t", "dim": 4, "optimizer": {"kind": "sgd", "learning_rate": 0.1}}
    return validate(Schema, {"tables": [{**learns, **table}], "features": [{"table": "t", **f} for f in features]})


A, B = {"name": "a"}, {"name": "b"}
ROWS = pa.table(
    {
        "a": [5, 7, None, 9],
        "b": [8, 9, 7, None],
        "far": [100, 101, 102, 103],
        "lists": [[[1], [7]], [], None, [[2, 3]]],
        "text": pa.array(["x", "y", None, "7"]).dictionary_encode(),
        "pieces": ["x|z", "q", None, "w"],
        "bytes": [b"v", b"x|u", b"x", None],
        "price": [5.0, 7.0, 8.0, 9.0],
    }
)


@pytest.mark.parametrize(
    ("table", "features", "value"),
    [
        ({}, [A, B], "7"),
        ({"num_rows": 10}, [A, B], "7"),
        ({}, [A, {"name": "c", "column": "lists"}], "7"),
        ({}, [{"name": "text"}, {"name": "c", "column": "pieces", "split": "|"}], "'x'"),
        ({}, [{"name": "text"}, {"name": "bytes"}], "'x'"),
        ({}, [{"name": "text"}, {"name": "c", "column": "bytes", "split": "|"}], "'x'"),
        ({}, [A, {"name": "hour", "timestamp_part": "hour", "column": "time"}], "5"),
        ({}, [B, {"name": "hour", "timestamp_part": "weekday", "column": "time"}], None),
        ({}, [{"name": "p", "column": "price", "num_buckets": 4}, {"name": "q", "num_buckets": 4}], "0"),
        ({}, [A, {"name": "far"}], None),
        ({}, [A, {"name": "text"}], None),
        ({}, [A, {"name": "again", "column": "a", "pooling": "mean"}], None),
        ({}, [A, {**B, "encoder": {"kind": "hash", "seed": 1}}], None),
        ({}, [A, {"name": "both", "cross": ["a", "b"]}], None),
        ({"share_ids": True}, [A, B], None),
        ({"share_ids": False}, [A, B], None),
    ],
)
def test_columns_with_values_in_common_are_told(
    table: dict[str, Any], features: list[dict[str, Any]], value: str | None
) -> None:
    found = shared_values(schema_of(table, *features), ROWS)
    assert len(found) == (value is not None)
    for sentence in found:
        assert f"read one row for equal ids, such as {value}; set share_ids" in sentence


def test_a_table_is_named_once() -> None:
    schema = schema_of({}, A, B, {"name": "c", "column": "lists"}, {"name": "far"})
    (sentence,) = shared_values(schema, ROWS)
    assert "features 'a' and 'b' (and 2 more such pairs) read" in sentence


def shared_log(folder: Path) -> None:
    """Items and tags are the same integers."""
    for file in sorted(folder.glob("*.parquet")):
        table = pq.read_table(file)
        items = pa.array([int(item.removeprefix("item-")) for item in table["item"].to_pylist()])
        pq.write_table(table.set_column(table.column_names.index("item"), "item", items), file, row_group_size=150)


def collisionless(share_ids: bool | None) -> list[dict[str, Any]]:
    table = {"dim": 8, "optimizer": {"kind": "sgd", "learning_rate": 0.1}}
    return [{"name": "user", **table}, {"name": "item", **table, "share_ids": share_ids}]


def test_a_run_and_the_check_say_it_once(
    make_config: Make, log_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: Callable[..., Any]
) -> None:
    shared_log(log_dir)
    changes = {"train.epochs": 1}
    train(make_config(**changes))
    said = [line for line in capsys.readouterr().err.splitlines() if "share_ids" in line]
    assert len(said) == 1
    assert said[0].startswith("warning: table 'item': features 'item' and 'tags' read one row for equal ids, such as ")
    config = tmp_path / "config.yaml"
    config.write_text(to_yaml(make_config(**changes)))
    status, out, _ = command("schema", "check", config, "--json")
    assert status == 0
    assert [f"warning: {text}" for text in json.loads(out)["warnings"]] == said
    for choice in (True, False):
        chosen = make_config(**{**changes, "tables.1.share_ids": choice})
        train(chosen)
        assert "share_ids" not in capsys.readouterr().err
    train(make_config(**changes), shown=False)
    assert capsys.readouterr().err == ""


def test_apart_each_feature_trains_rows_of_its_own(make_config: Make, log_dir: Path) -> None:
    """Collisionless: as many rows as both have ids; of which those of one feature alone are what it has read."""
    shared_log(log_dir)
    rows = {}
    for choice in (None, True, False):
        changes = {"tables": collisionless(choice), "train.epochs": 1}
        rows[choice] = train(make_config(**changes), shown=False)["tables"]["item"]["rows"]
    assert rows == {None: 30, True: 30, False: 30 + 9}


def test_first_order_weights_have_the_keys_of_their_table(make_config: Make, log_dir: Path) -> None:
    shared_log(log_dir)
    changes = {"tables": collisionless(False), "train.epochs": 1, "model": {"kind": "fm"}}
    report = train(make_config(**changes), shown=False)
    assert report["tables"]["item"]["rows"] == report["tables"]["linear.item"]["rows"] == 39


def test_another_choice_is_other_keys_and_the_default_is_none(make_config: Make) -> None:
    report = train(make_config(**{"train.epochs": 1}), shown=False)
    run = RunDir.open(Path(report["run_dir"]))
    assert "share_ids" not in (run.path / "config.yaml").read_text()
    with pytest.raises(StateError, match="table item: share_ids is False here, True there: ids mean other keys"):
        train(make_config(**{"tables.1.share_ids": False}), former=run, shown=False)
    going_on = train(make_config(**{"tables.1.share_ids": True}), former=run, shown=False)
    assert going_on["from"]["rules"] == []
    fresh = train(make_config(**{"tables.1.share_ids": False}), former=run, fresh=["item"], shown=False)
    assert "begins afresh, as asked" in str(fresh["from"]["rules"])
    with pytest.raises(StateError, match=r"tables\.1\.share_ids: False here, None there"):
        resume(run, ("tables.item.share_ids=false",), shown=False)
    assert resume(run, ("tables.item.share_ids=true", "train.epochs=2"), shown=False)["epochs"] == 2


def test_a_new_feature_of_such_a_table_has_keys_of_its_own(make_config: Make) -> None:
    changes: dict[str, Any] = {"tables.1.share_ids": False, "train.epochs": 1}
    run = RunDir.open(Path(train(make_config(**changes), shown=False)["run_dir"]))
    more = make_config(**changes).model_dump(mode="json")
    more["features"].append({"name": "seen", "column": "tags", "table": "item", "pooling": "mean"})
    report = train(validate(RunConfig, more), former=run, shown=False)
    assert "is new; its table's rows are as they were, and it has keys of its own" in str(report["from"]["rules"])


def test_row_numbers_cannot_be_kept_apart(make_config: Make) -> None:
    with pytest.raises(ConfigError, match="share_ids: false does not go with the identity encoder of feature 'user'"):
        make_config(**{"tables.0.share_ids": False})


def test_examples_say_what_they_mean() -> None:
    files = [f for f in (Path(__file__).parents[4] / "examples").glob("*/*.yaml") if "features:" in f.read_text()]
    assert len(files) >= 3
    for file in files:
        config = load_config(file)
        readers = {t.name: [f for f in config.features if f.table == t.name] for t in config.tables}
        for table in config.tables:
            encoders = [str(f.encoder) for f in readers[table.name]]
            assert table.share_ids is not None or len(set(encoders)) == len(encoders), (file, table.name)

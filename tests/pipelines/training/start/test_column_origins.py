"""Columns that `data.join` and `data.prepare` make: the same name under another configuration may have other values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from embtables.errors import StateError
from embtables.pipelines.config import RunConfig
from embtables.pipelines.run_dir import RunDir
from embtables.pipelines.training.learner import Learner
from embtables.pipelines.training.start.column_origins import other_origins
from embtables.pipelines.training.start.continue_from import FormerCheckpoint
from embtables.pipelines.training.train import resume, train
from embtables.schema.prepare import DERIVED_COLUMNS, SampledNegatives

Make = Callable[..., RunConfig]
PREPARE = {"item": "code", "user": "who", "group": "invoice", "event_time": "at", "price": "cost"}
PREPARED = "data.prepare (item: {item}, user: {user}, group: invoice, event_time: at, history_length: {length})"
JOIN = {"path": "side", "key": "item", "columns": ["kind"]}


def others(make: Make, column: str, then: dict[str, Any], here: dict[str, Any]) -> dict[str, str]:
    """The origins that differ, where a feature reads the column under both data sections."""
    features = [{"name": "f", "column": column, "table": "item"}, {"name": "user", "table": "user"}]
    configs = [
        make(features=features, **{f"data.{name}": value for name, value in data.items()}) for data in (then, here)
    ]
    return {name: str(other) for name, other in other_origins(*configs).items()}


DIFFERENT: dict[str, tuple[str, dict[str, Any], dict[str, Any], str]] = {
    "item of a history": (
        "history",
        {"prepare": PREPARE},
        {"prepare": {**PREPARE, "item": "sku"}},
        f"is of {PREPARED.format(item='sku', user='who', length=100)} here, "
        f"of {PREPARED.format(item='code', user='who', length=100)} there",
    ),
    "user of a history": (
        "history",
        {"prepare": PREPARE},
        {"prepare": {**PREPARE, "user": "household", "history_length": 9}},
        f"is of {PREPARED.format(item='code', user='household', length=9)} here, "
        f"of {PREPARED.format(item='code', user='who', length=100)} there",
    ),
    "price": (
        "last_price",
        {"prepare": PREPARE},
        {"prepare": {**PREPARE, "price": "list_price"}},
        "is of data.prepare (item: code, group: invoice, event_time: at, price: list_price) here, "
        "of data.prepare (item: code, group: invoice, event_time: at, price: cost) there",
    ),
    "time of a group": (
        "at",
        {"prepare": PREPARE},
        {"prepare": {**PREPARE, "group": "session"}},
        "is of data.prepare (group: session) here, of data.prepare (group: invoice) there",
    ),
    "no preparation": ("label", {}, {"prepare": PREPARE}, "is of data.prepare here, of the log there"),
    "key of a side table": (
        "kind",
        {"join": [JOIN]},
        {"join": [{**JOIN, "key": "user"}]},
        "is of data.join by user (its kind) here, of data.join by item (its kind) there",
    ),
    "key in the side table": (
        "kind",
        {"join": [JOIN]},
        {"join": [{**JOIN, "side_key": "successor"}]},
        "is of data.join by item = successor (its kind) here, of data.join by item (its kind) there",
    ),
    "column of the side table": (
        "a_kind",
        {"join": [{**JOIN, "prefix": "a_"}]},
        {"join": [{**JOIN, "prefix": "a", "columns": ["_kind"]}]},
        "is of data.join by item (its _kind) here, of data.join by item (its kind) there",
    ),
    "side table": ("kind", {}, {"join": [JOIN]}, "is of data.join by item (its kind) here, of the log there"),
    "key of a side table with all columns": (
        "kind",
        {"join": [{**JOIN, "columns": None}]},
        {"join": [{**JOIN, "columns": None, "key": "user"}]},
        "is of the log or data.join by user (its kind) here, of the log or data.join by item (its kind) there",
    ),
}


@pytest.mark.parametrize("case", DIFFERENT)
def test_other_values_of_the_same_column_are_found(make_config: Make, case: str) -> None:
    column, then, here, text = DIFFERENT[case]
    assert others(make_config, column, then, here)[column] == text


@pytest.mark.parametrize(
    ("column", "then", "here"),
    [
        ("kind", {"join": [JOIN]}, {"join": [{**JOIN, "path": "newer", "on_missing": "null", "side_key": "item"}]}),
        ("kind", {"join": [JOIN]}, {"join": [{**JOIN, "columns": ["kind", "size"]}]}),
        ("kind", {"join": [JOIN]}, {"join": [{**JOIN, "columns": None}]}),
        ("kind", {}, {"join": [{**JOIN, "columns": None}]}),
        ("kind", {"join": [JOIN]}, {"join": [JOIN, {**JOIN, "prefix": "user_", "key": "user"}]}),
        ("code", {"prepare": PREPARE}, {"prepare": {**PREPARE, "item": "sku"}}),
        ("history", {"prepare": PREPARE}, {"prepare": {**PREPARE, "seed": 3, "where": ["price > 1"]}}),
        ("item_sales", {"prepare": PREPARE}, {"prepare": {**PREPARE, "user": "household"}}),
    ],
)
def test_what_a_column_is_not_made_of_may_differ(
    make_config: Make, column: str, then: dict[str, Any], here: dict[str, Any]
) -> None:
    assert column not in others(make_config, column, then, here)


def test_derived_columns_are_made_of_options_that_exist() -> None:
    assert {name for made_of in DERIVED_COLUMNS.values() for name in made_of} <= SampledNegatives.model_fields.keys()


@pytest.fixture
def joined(make_config: Make, tmp_path: Path) -> Make:
    """A run that takes `kind` (a feature) and `size` (a dense column) of a side table."""
    side = tmp_path / "side.parquet"
    names = [f"item-{i}" for i in range(30)]
    rows = {"item": names, "user": range(30), "kind": [i % 4 for i in range(30)], "size": [i / 3 for i in range(30)]}
    pq.write_table(pa.table({name: list(values) for name, values in rows.items()}), side)

    def make(key: str = "item", **changes: Any) -> RunConfig:
        join = {"path": str(side), "key": key, "columns": ["kind", "size"], "on_missing": "null"}
        features = [
            {"name": "user", "table": "user", "encoder": {"kind": "identity"}},
            {"name": "kind", "table": "item"},
        ]
        dense = [{"column": "size", "transforms": ["standardise"], "fill_null": 0.0}]
        changed = {"features": features, "dense": dense, "data.join": [join], "train.epochs": 1, **changes}
        return make_config(**changed)

    return make


def test_a_run_that_continues_says_so_and_fits_the_net_anew(joined: Make) -> None:
    former = RunDir.open(Path(train(joined(), shown=False)["run_dir"]))
    report = train(joined("user"), former=former, which="last", shown=False)
    rules = [f"{rule['subject']}: {rule['text']}" for rule in report["from"]["rules"]]
    of_user, of_item = ("data.join by {} (its {})".format(key, "{}") for key in ("user", "item"))
    assert rules == [
        f"feature kind: its column kind is of {of_user.format('kind')} now, of {of_item.format('kind')} before: "
        "its ids must mean the same",
        f"dense net: begins afresh: dense column size is of {of_user.format('size')} here, "
        f"of {of_item.format('size')} there",
        "transforms: fitted on the new log, as they are new or changed: size",
    ]
    same = train(joined(), former=former, which="last", shown=False)
    assert same["from"]["rules"] == []
    # As they were: rows; afresh: the net.
    config = joined("user")
    origin, learner = FormerCheckpoint(former, config, "last"), Learner(config)
    origin.load(learner)
    fresh = Learner(config)
    assert not torch.equal(learner.tables.weight("item"), fresh.tables.weight("item"))
    ours, theirs = (dict(each.model.named_parameters()) for each in (learner, fresh))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_a_run_that_is_resumed_keeps_its_columns(joined: Make) -> None:
    run = RunDir.open(Path(train(joined(), shown=False)["run_dir"]))
    with pytest.raises(StateError) as raised:
        resume(run, ("data.join.0.key=user", "train.epochs=2"), shown=False)
    assert str(raised.value) == (
        "the checkpoint belongs to other columns (here: this configuration, there: the run's): "
        "column kind is of data.join by user (its kind) here, of data.join by item (its kind) there; "
        "column size is of data.join by user (its size) here, of data.join by item (its size) there"
    )
    assert resume(run, ("train.epochs=2",), shown=False)["epochs"] == 2

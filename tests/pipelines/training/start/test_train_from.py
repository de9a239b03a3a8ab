"""`train --from`: a new run begins with what a former one has learned, under a configuration that may differ."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from embtables import Tables
from embtables.errors import ConfigError, StateError
from embtables.pipelines.config import RunConfig
from embtables.pipelines.run_dir import RunDir
from embtables.pipelines.training import checkpoint
from embtables.pipelines.training.learner import Learner
from embtables.pipelines.training.start.continue_from import FormerCheckpoint
from embtables.pipelines.training.train import resume, train
from embtables.schema import to_yaml
from embtables.state.read.find import find
from tests.contents import flat, same

Make = Callable[..., RunConfig]
Command = Callable[..., tuple[int, str, str]]
ROWS = {"dim": 8, "optimizer": {"kind": "adagrad", "learning_rate": 0.1}}
GROWING = [
    {"name": "user", **ROWS, "admission": {"kind": "min_count", "count": 2, "counting": "sketch"}},
    {"name": "item", **ROWS, "admission": {"kind": "min_count", "count": 3}, "max_rows": 25, "cold_row": "trained"},
]


@pytest.fixture
def former(make_config: Make) -> Callable[..., RunDir]:
    """A trained run; its last checkpoint is the best one too."""

    def make(**changes: Any) -> RunDir:
        report = train(make_config(**{"train.epochs": 1, **changes}), shown=False)
        return RunDir.open(Path(report["run_dir"]))

    return make


def at(run: RunDir) -> Learner:
    learner = Learner(run.config())
    checkpoint.load(run.checkpoints, find(run.checkpoints, "last"), learner)
    return learner


def begun(run: RunDir, config: RunConfig, fresh: Any = ()) -> tuple[Learner, list[str]]:
    """A new learner, and the rules applied, before its first step."""
    former, learner = FormerCheckpoint(run, config, "last", fresh), Learner(config)
    former.load(learner)
    return learner, [str(note) for note in former.notes]


@pytest.mark.parametrize("tables", [None, GROWING])
@pytest.mark.parametrize("row_store", ["host", "reference"])
def test_where_nothing_differs_everything_goes_on(
    make_config: Make, former: Callable[..., RunDir], tables: Any, row_store: str
) -> None:
    changes = {"train.row_store": row_store, **({} if tables is None else {"tables": tables})}
    run = former(**changes)
    learner, notes = begun(run, make_config(**changes))
    old = at(run)
    assert notes == []
    assert same(flat(learner.tables), flat(old.tables))
    ours, theirs = learner.dense(), old.dense()
    ours.pop("random/torch")
    theirs.pop("random/torch")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert any(name.startswith("optimizer/") for name in ours)


def test_a_new_run_has_its_own_random_numbers(make_config: Make, former: Callable[..., RunDir]) -> None:
    run, config = former(), make_config()
    Learner(config)
    expected = torch.rand(3)
    begun(run, config)
    assert torch.equal(torch.rand(3), expected)


def test_what_was_learned_helps_and_the_report_has_the_rules(
    make_config: Make, former: Callable[..., RunDir], tmp_path: Path, command: Command
) -> None:
    run = former(**{"train.epochs": 3})
    config = make_config(**{"train.max_steps": 1, "tables.0.optimizer": {"kind": "adagrad", "learning_rate": 0.1}})
    (tmp_path / "new.yaml").write_text(to_yaml(config))
    arguments = (tmp_path / "new.yaml", "--from", run.path, "--checkpoint", "last", "--json")
    status, out, err = command("train", *arguments)
    assert status == 0
    report = json.loads(out.splitlines()[-1])
    started_from = report["from"]
    rule = "optimizer rowwise_adagrad -> adagrad: rows stay, each with its row's sum in each element"
    assert started_from["rules"] == [{"subject": "table user", "text": rule}]
    assert started_from["run"] == str(run.path)
    assert started_from["version"].startswith("resume-")
    assert f"table user: {rule}" in err
    assert report["auc"] > train(config, shown=False)["auc"] + 0.1
    # A run that is resumed still says where it began, and no longer needs that run.
    new = RunDir.open(Path(report["run_dir"]))
    run.path.rename(run.path.with_name("elsewhere"))
    assert resume(new, ("train.max_steps=2",), shown=False)["from"] == started_from


def test_tables_features_and_seed_may_change_together(make_config: Make, former: Callable[..., RunDir]) -> None:
    run = former(tables=GROWING)
    config = make_config(
        tables=[{**GROWING[0], "trainable": False}, {"name": "tag", **ROWS}],
        features=[
            {"name": "user", "table": "user", "encoder": {"kind": "identity"}},
            {"name": "tags", "table": "tag", "max_length": 3},
        ],
        **{"train.seed": 7, "train.epochs": 1},
    )
    learner, notes = begun(run, config)
    old = at(run)
    assert torch.equal(learner.tables.weight("user"), old.tables.weight("user"))
    keys = learner.tables.keys("tag")
    assert keys is not None
    assert len(keys) == 0
    for text in (
        "table user: another seed: rows stay",
        "table user: trainable true -> false: rows stay as they are",
        "table user: the sketch does not fit another seed or ttl",
        "table tag: is new: it begins afresh",
        "table item: is not in the configuration: its rows are dropped",
        "feature item: is not in the configuration",
        "feature tags: reads table tag now, item before",
    ):
        assert any(note.startswith(text) for note in notes), (text, notes)
    report = train(config, former=run, which="last", shown=False)
    trained = at(RunDir.open(Path(report["run_dir"])))
    assert torch.equal(trained.tables.weight("user"), old.tables.weight("user"))


@pytest.mark.parametrize("row_store", ["host", "reference"])
def test_a_sketch_that_begins_again_counts(make_config: Make, former: Callable[..., RunDir], row_store: str) -> None:
    run = former(tables=GROWING)
    changed = [{**GROWING[0], "admission": {"kind": "min_count", "count": 3, "counting": "sketch"}}, GROWING[1]]
    config = make_config(tables=changed, **{"train.epochs": 1, "train.row_store": row_store})
    assert train(config, former=run, which="last", shown=False)["auc"] > 0.5


# ---- dense


def test_dense_tensors_go_on_by_name_and_shape(make_config: Make, former: Callable[..., RunDir]) -> None:
    run = former(**{"model.hidden_sizes": [16, 8]})
    learner, notes = begun(run, make_config(**{"model.hidden_sizes": [16, 4]}))
    old, new = dict(at(run).model.named_parameters()), dict(learner.model.named_parameters())
    same_shape = [name for name in new if new[name].shape == old[name].shape]
    assert all(torch.equal(new[name], old[name]) for name in same_shape)
    assert 0 < len(same_shape) < len(new)
    (note,) = notes
    assert note.startswith(f"dense net: {len(same_shape)} of {len(new)} tensors go on; afresh: ")
    assert "here, (8, 16) there" in note
    fresh = dict(Learner(make_config(**{"model.hidden_sizes": [16, 4]})).model.named_parameters())
    assert all(torch.equal(new[name], fresh[name]) for name in new if name not in same_shape)
    assert {id(p) for p in learner.optimizer.state} == {id(new[name]) for name in same_shape}


FEATURES = [
    {"name": "item", "table": "item"},
    {"name": "user", "table": "user", "encoder": {"kind": "identity"}},
    {"name": "tags", "table": "item", "max_length": 3, "pooling": "mean"},
]
OTHER_MEANING: dict[str, tuple[dict[str, Any], str]] = {
    "order of features": ({"features": FEATURES}, "other features of the same number of values"),
    "dense column": ({"dense": [{"column": "row"}]}, "other dense columns of the same number of values"),
    "transforms of a dense column": (
        {"dense": [{"column": "price", "transforms": ["standardise"]}]},
        "other dense columns of the same number of values",
    ),
    "pooling": ({"features.2.pooling": "sum"}, "other features of the same number of values"),
    "parts of the net": ({"model.structure": "stacked"}, "model.structure is stacked here, parallel there"),
    "normalisation": ({"model.normalisation": "batch_norm"}, "model.normalisation is batch_norm here, None there"),
    "label": ({"labels": [{"column": "price", "positive_above": 1.0}]}, "other labels of the same number of values"),
    "model": ({"model": {"kind": "deepfm", "hidden_sizes": [16]}}, "model is deepfm here, dcnv2 there"),
}


@pytest.mark.parametrize("case", OTHER_MEANING)
def test_a_shape_that_fits_by_chance_is_not_taken(make_config: Make, former: Callable[..., RunDir], case: str) -> None:
    changes, text = OTHER_MEANING[case]
    config = make_config(**changes)
    learner, notes = begun(former(), config)
    assert f"dense net: begins afresh: {text}" in notes
    fresh = dict(Learner(config).model.named_parameters())
    assert all(torch.equal(value, fresh[name]) for name, value in learner.model.named_parameters())
    assert not learner.optimizer.state


def test_another_dropout_keeps_the_net_if_its_layers_keep_their_names(
    make_config: Make, former: Callable[..., RunDir]
) -> None:
    sizes = {"model.hidden_sizes": [16, 16, 16]}
    run = former(**sizes, **{"model.dropout": [0.1, 0.0, 0.0]})
    learner, notes = begun(run, make_config(**sizes, **{"model.dropout": [0.3, 0.0, 0.2]}))
    assert not notes
    then = dict(at(run).model.named_parameters())
    assert all(torch.equal(value, then[name]) for name, value in learner.model.named_parameters())
    # net.5 would be the last layer of the one and no layer of the other; net.3 a layer of both, another one.
    _, notes = begun(run, make_config(**sizes, **{"model.dropout": [0.0, 0.1, 0.0]}))
    assert notes[-1].startswith("dense net: begins afresh: model.dropout is (0.0, 0.1, 0.0) here, (0.1, 0.0, 0.0)")


# ---- transforms


def fitted_for(run: RunDir) -> dict[str, Any]:
    transforms: dict[str, Any] = find(run.checkpoints, "last")[-1].content["transforms"]
    return transforms


def test_transforms_stay_with_what_was_trained_on_them(make_config: Make, former: Callable[..., RunDir]) -> None:
    bucketed = {"name": "price_bucket", "column": "price", "table": "item", "num_buckets": 5}
    common = {"features": [*FEATURES, bucketed], "dense": [{"column": "price", "transforms": ["standardise"]}]}
    run = former(**common)
    # Another log: its own means and buckets would be others.
    config = make_config(
        **{**common, "dense": [*common["dense"], {"column": "row", "transforms": ["quantile"]}]},
        **{"data.where": ["price > 1"], "train.epochs": 1},
    )
    report = train(config, former=run, shown=False)
    old, new = (fitted_for(r) for r in (run, RunDir.open(Path(report["run_dir"]))))
    assert new["moments"] == old["moments"]
    assert new["buckets"] == old["buckets"]
    assert list(new["quantiles"]) == ["row"]
    assert {"subject": "transforms", "text": "fitted on the new log, as they are new or changed: row"} in report[
        "from"
    ]["rules"]
    other = fitted_for(RunDir.open(Path(train(config, shown=False)["run_dir"])))
    assert other["moments"] != old["moments"]
    assert other["buckets"] != old["buckets"]


def test_ages_are_said_to_go_on_by_other_times(make_config: Make, former: Callable[..., RunDir]) -> None:
    changes: dict[str, Any] = {"data.shuffle": None, "train.epochs": 1}
    ages = [{"name": name, **ROWS, "ttl_seconds": 86_400} for name in ("user", "item")]
    run = former(tables=ages, **changes)
    other = {"event_time": {"column": "row", "unit": "s"}, **changes}
    text = "event_time: is row now, time before: ages go on, its times must follow those before"
    assert begun(run, make_config(tables=ages, **other))[1] == [text]
    without = [{k: v for k, v in table.items() if k != "ttl_seconds"} for table in ages]
    assert text not in begun(run, make_config(tables=without, **other))[1]
    assert begun(run, make_config(tables=ages, **changes))[1] == []


# ---- refused


def test_what_cannot_go_on_is_reported_before_anything_is_made(
    make_config: Make, former: Callable[..., RunDir], tmp_path: Path
) -> None:
    run = former()
    runs = sorted((tmp_path / "runs").iterdir())
    config = make_config(**{"tables.0.dim": 16, "train.epochs": 1})
    with pytest.raises(StateError) as raised:
        train(config, former=run, shown=False)
    assert str(raised.value) == (
        f"run {run.path}: cannot go on under this configuration (here: the configuration, there: the version): "
        "table user: dim is 16 here, 8 there. To let a table begin afresh: --fresh user"
    )
    assert sorted((tmp_path / "runs").iterdir()) == runs
    report = train(config, former=run, fresh=["user"], shown=False)
    assert report["from"]["rules"][0] == {"subject": "table user", "text": "begins afresh, as asked"}
    with pytest.raises(ConfigError, match="--fresh: there is no table 'usr'; there are: item, user"):
        train(config, former=run, fresh=["usr"], shown=False)


def test_first_order_weights_begin_afresh_with_their_table(make_config: Make, former: Callable[..., RunDir]) -> None:
    config = make_config(**{"model": {"kind": "fm"}})
    run = former(**{"model": {"kind": "fm"}})
    learner, _ = begun(run, config, ["user"])
    fresh, old = Learner(config).tables, at(run).tables
    assert all(np.array_equal(learner.tables.weight(n), fresh.weight(n)) for n in ("user", "linear.user"))
    assert all(np.array_equal(learner.tables.weight(n), old.weight(n)) for n in ("item", "linear.item"))


def test_first_order_weights_of_one_model_take_the_keys_of_another(
    make_config: Make, former: Callable[..., RunDir]
) -> None:
    tables = [{"name": n, **ROWS, "admission": {"kind": "min_count", "count": 2}} for n in ("user", "item")]
    config = make_config(tables=tables, **{"model": {"kind": "fm"}})
    # Of a model without embeddings: keys come from the first-order weights, embeddings are fresh.
    run = former(tables=tables, **{"model": {"kind": "lr"}})
    learner, notes = begun(run, config)
    old, new = at(run).tables, learner.tables
    for name in ("user", "item"):
        assert _state(new, f"linear.{name}") == _state(old, f"linear.{name}")
        assert torch.equal(new.keys(name), old.keys(f"linear.{name}"))
        assert f"table linear.{name}: rows stay; new keys are {name}'s" in notes
    # Of a model without first-order weights: they begin at zero, with the keys of the embeddings.
    run = former(tables=tables, **{"model": {"kind": "dcnv2", "hidden_sizes": [8], "num_cross_layers": 1}})
    new, old = begun(run, config)[0].tables, at(run).tables
    for name in ("user", "item"):
        assert _state(new, name) == _state(old, name)
        found = new.get(f"linear.{name}", torch.arange(5))
        assert not found.any()


def _state(tables: Tables, name: str) -> list[Any]:
    content = tables.table_content(name)
    order, waits = np.argsort(content.keys), np.argsort(content.waiting)
    rows = [content.keys[order], content.columns["weight"][order], content.seen[order], content.counts[order]]
    waiting = [content.waiting[waits], content.waiting_counts[waits], content.waiting_seen[waits]]
    return [values.tolist() for values in (*rows, *waiting)]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--from", "RUN"], "give a configuration file"),
        (["--resume", "RUN", "--from", "RUN"], "--from begins a new one"),
        (["CONFIG", "--fresh", "user"], "--checkpoint and --fresh go with --from"),
        (["CONFIG", "--from", "CONFIG"], "is not the folder of a run"),
        (["CONFIG", "--from", "RUN", "--checkpoint", "newest"], "choose one of: best, last"),
    ],
)
def test_arguments_that_do_not_go_together(
    make_config: Make,
    tmp_path: Path,
    arguments: list[str],
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    command: Command,
) -> None:
    run = RunDir.create(make_config())
    (tmp_path / "new.yaml").write_text(to_yaml(make_config()))
    names = {"RUN": str(run.path), "CONFIG": str(tmp_path / "new.yaml")}
    monkeypatch.setenv("COLUMNS", "300")
    status, _, err = command("train", *(names.get(a, a) for a in arguments))
    assert status == 2
    assert text in err

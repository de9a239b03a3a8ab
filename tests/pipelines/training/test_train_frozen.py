"""Frozen tables in a training run: the dense net learns, their rows stay, their deltas are empty."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from embtables.pipelines.config import RunConfig
from embtables.pipelines.run_dir import RunDir
from embtables.pipelines.training import checkpoint
from embtables.pipelines.training.learner import Learner
from embtables.pipelines.training.run_content import run_content, trained_schema
from embtables.pipelines.training.train import train
from embtables.state.folder.version_folder import StateFolder
from embtables.state.read.find import find
from tests.contents import flat, same

Make = Callable[..., RunConfig]
ROWS = {"dim": 8, "optimizer": {"kind": "rowwise_adagrad", "learning_rate": 0.1}}


def learner_of(report: dict[str, Any]) -> Learner:
    run = RunDir.open(Path(report["run_dir"]))
    learner = Learner(run.config())
    checkpoint.load(run.checkpoints, find(run.checkpoints, "last"), learner)
    return learner


@pytest.mark.parametrize("row_store", ["host", "fbgemm", "reference"])
def test_with_all_tables_frozen_the_dense_net_learns_alone(make_config: Make, row_store: str) -> None:
    frozen = {f"tables.{n}.trainable": False for n in (0, 1)}
    config = make_config(**{**frozen, "train.row_store": row_store, "train.clip_norm": 0.5})
    trained = learner_of(train(config, shown=False))
    fresh = Learner(config)
    assert same(flat(trained.tables), flat(fresh.tables))
    assert all(not torch.equal(a, b) for a, b in zip(trained.parameters(), fresh.parameters(), strict=True))


def test_first_order_weights_freeze_with_their_table(make_config: Make) -> None:
    config = make_config(**{"model": {"kind": "fm"}, "tables.0.trainable": False})
    trained, fresh = learner_of(train(config, shown=False)).tables.content(), Learner(config).tables.content()
    moved = {name for name in trained if (trained[name].columns["weight"] != fresh[name].columns["weight"]).any()}
    assert moved == {"item", "linear.item"}


def test_deltas_of_a_frozen_table_are_empty_and_its_ttl_asks_for_no_order(make_config: Make) -> None:
    # Two shuffled epochs: refused with a ttl, unless the table is frozen and no ttl runs.
    tables = [{"name": "user", **ROWS, "ttl_seconds": 60, "trainable": False}, {"name": "item", **ROWS}]
    report = train(make_config(tables=tables, **{"train.checkpoint_every_steps": 5}), shown=False)
    state = StateFolder(Path(report["run_dir"]) / "checkpoints")
    deltas = [m for m in (state.manifest("resume", n) for n in state.sequences("resume")) if m.parent is not None]
    assert deltas
    assert all(m.files["user.rows.0.arrow"].rows == 0 for m in deltas)
    assert all(m.files["item.rows.0.arrow"].rows for m in deltas[:-1])
    assert report["tables"]["user"]["rows"] == 0


def test_a_checkpoint_from_before_an_option_has_its_default(make_config: Make) -> None:
    config = make_config(**{"train.epochs": 1})
    newest = find(RunDir.open(Path(train(config, shown=False)["run_dir"])).checkpoints, "last")[-1]
    schema = {**newest.content["schema"]}
    schema["tables"] = [{k: v for k, v in table.items() if k != "trainable"} for table in schema["tables"]]
    older = newest.model_copy(update={"content": {**newest.content, "schema": schema}})
    assert run_content(older).trained == trained_schema(config)

"""Training by several ranks: the same run as by one, to be resumed by any number."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embtables.pipelines.config import RunConfig
from embtables.pipelines.run_dir import RunDir
from embtables.pipelines.training import checkpoint
from embtables.pipelines.training.learner import Learner
from embtables.pipelines.training.train import resume, train
from embtables.state.read.find import find
from tests.shard.groups_for_tests import Group

Make = Callable[..., RunConfig]
WORKER = "tests.pipelines.distributed.ranks_for_tests"
TABLES = [
    {"name": "user", "dim": 8, "optimizer": {"kind": "adagrad", "learning_rate": 0.1}, "cold_row": "trained"},
    {"name": "item", "dim": 8, "num_rows": 64, "optimizer": {"kind": "rowwise_adagrad", "learning_rate": 0.1}},
    # No more rows than ranks: replicated.
    {"name": "tag", "dim": 4, "num_rows": 2, "optimizer": {"kind": "adagrad", "learning_rate": 0.1}},
]
FEATURES = [
    {"name": "user", "table": "user", "encoder": {"kind": "identity"}},
    {"name": "item", "table": "item"},
    {"name": "tags", "table": "tag", "max_length": 3, "pooling": "mean"},
]
TABLES[0]["admission"] = {"kind": "min_count", "count": 2}
CHANGES = {
    "tables": TABLES,
    "features": FEATURES,
    "model.dropout": 0.0,
    "train.checkpoint_every_steps": 4,
    "train.clip_norm": 1.0,
}


def learned(run: RunDir) -> dict[str, Any]:
    """What the last checkpoint of a run holds, read by one process."""
    learner = Learner(run.config())
    checkpoint.load(run.checkpoints, find(run.checkpoints, "last"), learner)
    found: dict[str, Any] = dict(checkpoint.dense_arrays(learner))
    for name, content in learner.tables.content().items():
        found |= {f"{name} keys": content.keys, f"{name} counts": content.counts, f"{name} waiting": content.waiting}
        found |= {f"{name} {column}": values for column, values in content.columns.items()}
    return {name: values for name, values in found.items() if not name.startswith("random/")}


def assert_near(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=2e-4, rtol=1e-4, err_msg=name)


def rows_used(run: RunDir) -> list[Any]:
    return [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]


# First-order weights share the keys of embeddings at every rank.
WITH_FIRST_ORDER = {"model": {"kind": "fm"}, "tables": [{**table, "dim": 8, "max_rows": 40} for table in TABLES[:1]]}
WITH_FIRST_ORDER["tables"] += [{**table, "dim": 8} for table in TABLES[1:]]


# The last batches of epochs leave ranks with few rows or none.
NORMALISED = {
    "model": {"kind": "dcnv2", "num_cross_layers": 1, "hidden_sizes": [16, 8], "normalisation": "batch_norm"},
    "train.batch_size": 98,
    "tables": [
        {**table, "optimizer": {**table["optimizer"], "weight_decay": {"kind": "dense", "rate": 0.05}}}
        for table in TABLES
    ],
}


@pytest.mark.parametrize(("size", "changes"), [(2, {}), (3, {}), (2, WITH_FIRST_ORDER), (3, NORMALISED)])
def test_a_run_does_not_depend_on_the_number_of_ranks(
    size: int, changes: dict[str, Any], make_config: Make, group: Callable[[int], Group]
) -> None:
    config = make_config(**{k: v for k, v in CHANGES.items() if not (changes and k == "model.dropout")} | changes)
    whole = train(config, shown=False)
    run = RunDir.create(config)
    reports = [report for report, _ in group(size).run(f"{WORKER}:train", config, str(run.path))]
    for report in reports:
        for figure in ("auc", "log_loss"):
            assert report[figure] == pytest.approx(whole[figure], abs=2e-3)
        assert {k: report[k] for k in ("rows", "steps", "best_step")} == {
            k: whole[k] for k in ("rows", "steps", "best_step")
        }
        assert report["tables"]["user"]["rows"] == whole["tables"]["user"]["rows"]
    assert_near(learned(run), learned(RunDir(Path(whole["run_dir"]))))
    assert json.loads((run.path / "report.json").read_text())["rows"] == whole["rows"]
    lines = rows_used(run)
    assert len(lines) == len(rows_used(RunDir(Path(whole["run_dir"]))))


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2), (2, 3)])
def test_a_run_goes_on_with_another_number_of_ranks(
    before: int, after: int, make_config: Make, group: Callable[[int], Group]
) -> None:
    whole = train(make_config(**CHANGES), shown=False)
    config = make_config(**CHANGES, **{"train.max_steps": 9})
    run = RunDir.create(config)
    group(before).run(f"{WORKER}:train", config, str(run.path))
    go_on = ("train.max_steps=null",)
    if after == 1:
        report = resume(run, go_on, shown=False)
    else:
        report = group(after).run(f"{WORKER}:resume", str(run.path), go_on)[0]
    assert report["rows"] == whole["rows"]
    assert report["auc"] == pytest.approx(whole["auc"], abs=2e-3)
    assert_near(learned(run), learned(RunDir(Path(whole["run_dir"]))))


def test_a_run_of_several_ranks_begins_with_another_run_under_another_seed(
    make_config: Make, group: Callable[[int], Group]
) -> None:
    former = RunDir(Path(train(make_config(**CHANGES), shown=False)["run_dir"]))
    config = make_config(**CHANGES, **{"train.seed": 7, "train.epochs": 1})
    whole = train(config, former=former, shown=False)
    run = RunDir.create(config)
    report = group(2).run(f"{WORKER}:train_from", config, str(run.path), str(former.path))[0]
    assert report["from"]["rules"] == whole["from"]["rules"]
    assert_near(learned(run), learned(RunDir(Path(whole["run_dir"]))))

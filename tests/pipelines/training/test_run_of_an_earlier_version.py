"""A run that commit 3ce6b69 wrote: its versions load, score as they did, and go on to what that commit would have made.

The folder was written with `train.max_steps: 9`; expected.* is what the same commit gave after resuming it to step 18.
Dense products differ by processor, so weights are compared within a tolerance, keys and counts exactly.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from embtables import Tables
from embtables.pipelines.run_dir import RunDir
from embtables.pipelines.trained.load_run import load_run
from embtables.pipelines.trained.predict import predict
from embtables.pipelines.training.learner import Learner
from embtables.pipelines.training.start.continue_from import FormerCheckpoint
from embtables.pipelines.training.train import resume
from embtables.state import read_rows

GOLDEN = Path(__file__).parents[2] / "golden" / "run_3ce6b69"


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    shutil.copytree(GOLDEN, tmp_path / "run")
    return RunDir.open(tmp_path / "run")


def test_it_scores_as_it_did(run: RunDir, tmp_path: Path) -> None:
    predict(load_run(run, "last"), str(GOLDEN / "log.parquet"), tmp_path / "scores.parquet")
    scores = pq.read_table(tmp_path / "scores.parquet").column("score").to_numpy()
    np.testing.assert_allclose(scores, np.load(GOLDEN / "scores.npy"), atol=1e-6)


def test_another_run_begins_with_it(run: RunDir) -> None:
    config = run.config().model_copy(update={"name": "next"})
    learner = Learner(config)
    FormerCheckpoint(run, config, "last").load(learner)
    then, now = load_run(run, "last").scorer.tables, learner.tables
    # First-order weights had keys of their own: those that the table of embeddings has go over with their rows.
    for name in ("item", "user"):
        assert torch.equal(now.keys(name), then.keys(name))
        assert torch.equal(now.keys(f"linear.{name}"), now.keys(name))
        both = np.intersect1d(then.keys(f"linear.{name}"), now.keys(name))
        keys, row = torch.from_numpy(both), f"linear.{name}"
        assert len(both) > 150
        assert torch.equal(rows_of(now, row, keys), rows_of(then, row, keys))


def rows_of(tables: Tables, table: str, keys: torch.Tensor) -> torch.Tensor:
    everything = tables.keys(table)
    assert everything is not None
    return tables.weight(table)[torch.searchsorted(everything, keys)]


def test_it_goes_on_as_it_would_have(run: RunDir) -> None:
    report = resume(run, ("train.max_steps=18",), shown=False)
    expected = json.loads((GOLDEN / "expected.json").read_text())["resumed_to_step_18"]
    for name, value in expected["report"].items():
        assert report[name] == pytest.approx(value, rel=1e-4), name
    arrays = np.load(GOLDEN / "expected.npz")
    for table, rows in expected["rows"].items():
        found = pa.Table.from_batches(read_rows(run.checkpoints, table))
        keys = found.column("key").to_numpy()
        assert len(keys) == rows
        for name in found.column_names:
            column = found.column(name).combine_chunks()
            values = (column.flatten() if pa.types.is_fixed_size_list(column.type) else column).to_numpy()
            ours, theirs = values.reshape(rows, -1)[np.argsort(keys)], arrays[f"{table}/{name}"].reshape(rows, -1)
            if name in ("key", "seen", "count"):
                np.testing.assert_array_equal(ours, theirs, err_msg=f"{table}/{name}")
            else:
                np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5, err_msg=f"{table}/{name}")

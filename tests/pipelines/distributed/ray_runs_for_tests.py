"""A run for tests on real Ray: its log and configuration, how it is started, and what it left."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from embtables.pipelines.run_dir import RunDir
from embtables.pipelines.training import checkpoint
from embtables.pipelines.training.learner import Learner
from embtables.state.read.find import find

ROWS = 6_000


def content(folder: Path) -> dict[str, Any]:
    """A run that counts, in a table of its own, how often each row of the log was trained on."""
    learns = {"optimizer": {"kind": "adagrad", "learning_rate": 0.1}}
    return {
        "name": "ranks",
        "tables": [
            {"name": "row", "dim": 1, **learns},
            {"name": "user", "dim": 4, "admission": {"kind": "min_count", "count": 2}, **learns},
            {"name": "item", "dim": 4, "num_rows": 90, **learns},
        ],
        "features": [
            {"name": name, "table": name, "encoder": {"kind": "identity"}} for name in ("row", "user", "item")
        ],
        "labels": [{"column": "click"}],
        "data": {"path": str(folder / "log.parquet"), "shuffle": {"buffer_rows": 500}},
        "model": {"kind": "dcnv2", "num_cross_layers": 1, "hidden_sizes": [8], "dropout": 0.1},
        "train": {
            "epochs": 2,
            "batch_size": 50,
            "checkpoint_every_steps": 10,
            "log_every_steps": 5,
            "threads": 1,
            "runs_dir": str(folder / "runs"),
        },
    }


def make_config(folder: Path) -> Path:
    """The log and the configuration in a folder; returns the latter."""
    rng = np.random.default_rng(0)
    columns = {"user": rng.integers(0, 300, ROWS), "item": rng.integers(0, 90, ROWS), "click": rng.integers(0, 2, ROWS)}
    pq.write_table(pa.table({"row": np.arange(ROWS), **columns}), folder / "log.parquet", row_group_size=700)
    path = folder / "ranks.yaml"
    path.write_text(yaml.safe_dump(content(folder)))
    return path


def start(folder: Path, environment: dict[str, str], *arguments: object) -> subprocess.Popen[str]:
    """`embtables train` in a folder."""
    command = [
        sys.executable,
        "-m",
        "embtables",
        "train",
        *map(str, arguments),
    ]
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=folder, env=environment, **pipes)


def the_run(folder: Path) -> RunDir:
    (found,) = (folder / "runs").glob("*-*")
    return RunDir(found)


def held(run: RunDir) -> dict[str, Any]:
    learner = Learner(run.config())
    checkpoint.load(run.checkpoints, find(run.checkpoints, "last"), learner)
    found: dict[str, Any] = dict(checkpoint.dense_arrays(learner))
    for name, of in learner.tables.content().items():
        found |= {f"{name} keys": of.keys, f"{name} counts": of.counts, f"{name} waiting": of.waiting}
        found |= {f"{name} {column}": values for column, values in of.columns.items()}
    return found


def steps_of(run: RunDir) -> list[int]:
    path = run.path / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line)["step"] for line in lines]


def until_step(folder: Path, step: int, process: subprocess.Popen[str]) -> None:
    """Waits until the run's figures go beyond a step."""
    deadline = time.monotonic() + 200
    while not any((folder / "runs").glob("*-*")) or not any(n > step for n in steps_of(the_run(folder))):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Bit for bit."""
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name].tobytes() == values.tobytes(), name

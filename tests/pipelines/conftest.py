"""A small log that learns quickly, and how to write one with faults."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embtables.pipelines.config import RunConfig
from embtables.pipelines.sources.log import Log
from embtables.schema import validate


def make_table(rows: int, seed: int = 0, first: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    user = rng.integers(0, 40, rows)
    item = rng.integers(0, 30, rows)
    chance = 1 / (1 + np.exp(-(1.2 * (user % 5 - 2) + 1.0 * (item % 3 - 1))))
    return pa.table(
        {
            "row": np.arange(first, first + rows),
            "user": user,
            "item": [f"item-{i}" for i in item],
            "tags": [[int(t) for t in rng.integers(0, 9, rng.integers(0, 5))] for _ in range(rows)],
            "price": rng.lognormal(size=rows),
            "label": (rng.random(rows) < chance).astype(np.int8),
            "time": pa.array(np.arange(first, first + rows) * 60, pa.timestamp("s")),
        }
    )


def open_log(config: RunConfig) -> Log:
    return Log(config, config.data)


@pytest.fixture
def log_dir(tmp_path: Path) -> Path:
    """Three files of 600 rows, row groups of 150."""
    folder = tmp_path / "log"
    folder.mkdir()
    for number in range(3):
        table = make_table(600, seed=number, first=600 * number)
        pq.write_table(table, folder / f"part-{number}.parquet", row_group_size=150)
    return folder


def content(path: Path, runs: Path) -> dict[str, Any]:
    table = {"dim": 8, "optimizer": {"kind": "rowwise_adagrad", "learning_rate": 0.1}}
    return {
        "name": "small",
        "tables": [{"name": "user", "num_rows": 64, **table}, {"name": "item", "num_rows": 64, **table}],
        "features": [
            {"name": "user", "table": "user", "encoder": {"kind": "identity"}},
            {"name": "item", "table": "item"},
            {"name": "tags", "table": "item", "max_length": 3, "pooling": "mean"},
        ],
        "labels": [{"column": "label"}],
        "dense": [{"column": "price", "transforms": ["log1p", "standardise"]}],
        "event_time": {"column": "time"},
        "data": {
            "path": str(path),
            "split": {"kind": "hash", "columns": ["row"], "validation": 0.2, "test": 0.2},
            "shuffle": {"buffer_rows": 500},
            "block_rows": 400,
        },
        "model": {"kind": "dcnv2", "num_cross_layers": 1, "hidden_sizes": [16], "dropout": 0.1},
        "train": {
            "epochs": 2,
            "batch_size": 100,
            "runs_dir": str(runs),
            "log_every_steps": 5,
            "threads": 1,
            "dense_optimizer": {"learning_rate": 0.01},
        },
    }


@pytest.fixture
def make_config(log_dir: Path, tmp_path: Path) -> Callable[..., RunConfig]:
    """A run configuration over `log_dir`, with dotted changes: `make_config(**{"train.epochs": 1})`."""

    def make(**changes: Any) -> RunConfig:
        made = content(log_dir, tmp_path / "runs")
        for key, value in changes.items():
            node: Any = made
            *parents, last = key.split(".")
            for part in parents:
                node = node[int(part) if part.isdigit() else part]
            node[last] = value
        return validate(RunConfig, made)

    return make


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A 1 MB tmpfs."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder]
    if os.geteuid() != 0 or subprocess.run(mount, check=False).returncode:
        pytest.skip("mounting a tmpfs needs root")
    yield folder
    subprocess.run(["umount", folder], check=True)

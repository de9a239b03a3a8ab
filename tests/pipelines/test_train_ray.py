"""Training on real Ray: two workers, one of them killed in mid-epoch, and what a user is told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from pipelines import checkpoint
from pipelines.learner import Learner
from pipelines.run_dir import RunDir

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


@pytest.fixture
def config(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    columns = {"user": rng.integers(0, 300, ROWS), "item": rng.integers(0, 90, ROWS), "click": rng.integers(0, 2, ROWS)}
    pq.write_table(pa.table({"row": np.arange(ROWS), **columns}), tmp_path / "log.parquet", row_group_size=700)
    path = tmp_path / "ranks.yaml"
    path.write_text(yaml.safe_dump(content(tmp_path)))
    # A user's own modules, with names like ours, in the folder where the command is given.
    for name in ("models", "pipelines", "embtables", "serving"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('these are not the modules you look for')\n")
    return path


@pytest.fixture
def start(config: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `embtables train` in the folder of the configuration."""
    started: list[subprocess.Popen[str]] = []
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}

    def of(*arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", "from pipelines.cli import main; main()", "train", *map(str, arguments)]
        pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, cwd=config.parent, env=environment, **pipes))
        return started[-1]

    yield of
    for process in started:
        process.kill()
        process.wait()


def the_run(folder: Path) -> RunDir:
    (found,) = (folder / "runs").iterdir()
    return RunDir(found)


def held(run: RunDir) -> dict[str, Any]:
    learner = Learner(run.config())
    checkpoint.load(run.checkpoints, checkpoint.find(run.checkpoints, "last"), learner)
    found: dict[str, Any] = dict(checkpoint.dense_arrays(learner))
    for name, of in learner.tables.content().items():
        found |= {f"{name} keys": of.keys, f"{name} counts": of.counts, f"{name} waiting": of.waiting}
        found |= {f"{name} {part}": values for part, values in of.parts.items()}
    return found


def steps_of(run: RunDir) -> list[int]:
    path = run.path / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line)["step"] for line in lines]


def workers_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    children = psutil.Process(process.pid).children(recursive=True)
    return [child for child in children if "RayTrainWorker" in " ".join(child.cmdline())]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_worker_changes_nothing_and_every_row_is_used_once_an_epoch(
    config: Path, tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    whole = start(config, "--workers", 2, "--json")
    out, err = whole.communicate(timeout=280)
    assert whole.returncode == 0, err
    undisturbed = the_run(tmp_path)
    report = json.loads(out.splitlines()[-1])
    assert (report["rows"], report["steps"]) == (2 * ROWS, 2 * ROWS // 50)
    assert len(steps_of(undisturbed)) == len(set(steps_of(undisturbed))), "rank 0 alone writes metrics"
    expected = held(undisturbed)
    assert expected["row keys"].tolist() != []
    assert set(expected["row counts"].tolist()) == {2}
    assert len(expected["row keys"]) == ROWS
    undisturbed.path.rename(tmp_path / "undisturbed")
    killed = start(config, "--workers", 2, "--json")
    deadline = time.monotonic() + 200
    while not any((tmp_path / "runs").iterdir()) or not any(step > 20 for step in steps_of(the_run(tmp_path))):
        assert killed.poll() is None, killed.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    workers = workers_of(killed)
    assert len(workers) == 2
    workers[-1].send_signal(signal.SIGKILL)
    out, err = killed.communicate(timeout=280)
    assert killed.returncode == 0, err
    assert "going on from resume-" in err
    assert steps_of(the_run(tmp_path)) == steps_of(RunDir(tmp_path / "undisturbed"))
    found = held(the_run(tmp_path))
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name].tobytes() == values.tobytes(), name
    assert json.loads(out.splitlines()[-1])["rows"] == report["rows"]


@pytest.mark.slow
def test_a_users_mistake_is_told_once_and_not_tried_again(
    config: Path, tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    columns = pq.read_table(tmp_path / "log.parquet").to_pydict()
    columns["click"][4_321] = 7
    pq.write_table(pa.table(columns), tmp_path / "log.parquet", row_group_size=700)
    process = start(config, "--workers", 2, "--json")
    _, err = process.communicate(timeout=280)
    assert process.returncode == 1
    assert "Traceback" not in err
    assert [line for line in err.splitlines() if "error:" in line and "row 4321" in line], err

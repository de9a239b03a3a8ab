"""An online run on real Ray over the command line: two workers read an event log, one is killed, and a third joins."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import watchfiles

from embtables.pipelines.config import RunConfig
from embtables.pipelines.run_dir import RunDir
from embtables.schema import to_yaml
from tests.pipelines.distributed.ray_nodes_for_tests import ranks_below
from tests.pipelines.distributed.test_online_ranks import fill, pass_time

Make = Callable[..., RunConfig]
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def of(*arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "embtables", "online", *map(str, arguments)]
        pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        environment = {**os.environ, "PYTHONSAFEPATH": "1"}
        started.append(subprocess.Popen(command, cwd=tmp_path, env=environment, **pipes))
        return started[-1]

    yield of
    for process in started:
        process.kill()
        process.wait()


def until_saved(runs: Path, process: subprocess.Popen[str], least: int) -> RunDir:
    """The only run, once it has so many checkpoints."""
    runs.mkdir(exist_ok=True)
    for _ in watchfiles.watch(runs, rust_timeout=200, yield_on_timeout=True, step=20):
        assert process.poll() is None, process.communicate()[1]
        if len(list(runs.glob("*/checkpoints/manifests/resume-*.json"))) >= least:
            return RunDir(next(runs.iterdir()))
    raise AssertionError("the watch ended")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_worker_is_killed_and_another_number_drains_the_log(make_config: Make, tmp_path: Path, start: Start) -> None:
    uri = f"folder://{tmp_path}/events?partitions=4"
    made = fill(uri, 60)
    config = make_config(
        **{
            "labels": [{"column": "label"}],
            "dense": [{"column": "price", "fill_null": 0.0}],
            "data.split": None,
            "data.shuffle": None,
            "train.epochs": 1,
            "train.batch_size": 20,
            "model": {"kind": "fm"},
            "online": {
                "events": {"log": uri, "item": "item", "window_seconds": 100, "late_window_seconds": 200},
                "sync_seconds": 60,
            },
        }
    )
    file = tmp_path / "my.yaml"
    file.write_text(to_yaml(config))
    process = start(file, "--workers", 2)
    until_saved(tmp_path / "runs", process, 2)
    ranks_below(process)[-1].send_signal(signal.SIGKILL)
    fill(uri, 60, first=60)
    run = until_saved(tmp_path / "runs", process, 6)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "all ranks are started again" in said
    assert f"go on with: embtables online --resume {run.path} --workers 2" in said
    pass_time(uri, 1700)
    drained = start("--resume", run.path, "--workers", 3, "--drain", "--json")
    out, said = drained.communicate(timeout=200)
    assert drained.returncode == 0, said
    report = json.loads(out.splitlines()[-1])
    counts = report["events"]
    assert counts["impressions"] == 2 * made["impressions"] == counts["positives"] + counts["negatives"]
    assert counts["positives"] + counts["late_positives"] == 2 * made["clicked"]
    assert report["rows"] == 2 * made["impressions"] + counts["late_positives"]

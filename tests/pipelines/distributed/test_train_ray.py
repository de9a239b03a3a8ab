"""Training on real Ray: two workers, one of them killed in mid-epoch, and what a user reads."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from socket import SOCK_DGRAM

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embtables.pipelines.run_dir import RunDir
from tests.pipelines.distributed import ray_runs_for_tests
from tests.pipelines.distributed.ray_nodes_for_tests import ranks_below
from tests.pipelines.distributed.ray_runs_for_tests import (
    ROWS,
    assert_same,
    held,
    make_config,
    steps_of,
    the_run,
    until_step,
)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = make_config(tmp_path)
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
        started.append(ray_runs_for_tests.start(config.parent, environment, *arguments))
        return started[-1]

    yield of
    for process in started:
        process.kill()
        process.wait()


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
    until_step(tmp_path, 20, killed)
    workers = ranks_below(killed)
    assert len(workers) == 2
    workers[-1].send_signal(signal.SIGKILL)
    out, err = killed.communicate(timeout=280)
    assert killed.returncode == 0, err
    assert "going on from resume-" in err
    assert steps_of(the_run(tmp_path)) == steps_of(RunDir(tmp_path / "undisturbed"))
    assert_same(held(the_run(tmp_path)), expected)
    assert json.loads(out.splitlines()[-1])["rows"] == report["rows"]


@pytest.mark.slow
def test_the_cluster_of_a_run_is_on_loopback_and_wants_its_token(
    config: Path, tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    process = start(config, "--workers", 2, "--set", "train.epochs=200")
    until_step(tmp_path, 5, process)
    every = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    found = {
        (each.name(), socket.laddr.ip.removeprefix("::ffff:"), socket.laddr.port)
        for each in every
        for socket in each.net_connections("inet")
        if socket.status == psutil.CONN_LISTEN or socket.type == SOCK_DGRAM
    }
    assert {"gcs_server", "raylet"} <= {name for name, _, _ in found}
    assert {address for _, address, _ in found} == {"127.0.0.1"}, found
    (port,) = [port for name, _, port in found if name == "gcs_server"]
    client = [sys.executable, "-c", f"import ray; ray.init(address='127.0.0.1:{port}')"]
    without = {"RAY_AUTH_MODE": "disabled", "RAY_NUM_REDIS_GET_RETRIES": "1", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    without = {**os.environ, **without}
    done = subprocess.run(client, env=without, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode != 0
    assert "uthentication token is missing" in done.stderr
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "go on with: embtables train --resume" in err
    assert err.rstrip().endswith("--workers 2")


@pytest.mark.slow
def test_a_users_mistake_is_reported_once_and_not_tried_again(
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
    assert the_run(tmp_path).has_something  # figures of the steps before

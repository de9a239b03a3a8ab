"""`embtables running fold`, and a server that begins with its checkpoint."""

from __future__ import annotations

import datetime
import json
import time
from pathlib import Path

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from embtables.errors import ConfigError
from embtables.events import open_log
from embtables.events.check import check_events
from embtables.pipelines.cli.main import app
from tests.serving.running.conftest import ServeRunning
from tests.serving.running.test_server import columns_of

EVENTS, FOLDED = 60, 35
STEP_US = 20_000_000


@pytest.fixture
def events() -> pa.Table:
    """Of the last 20 minutes, in order of time."""
    now, numbers = time.time_ns() // 1_000, range(EVENTS)
    return pa.table(
        {
            "event_id": [f"e{n}" for n in numbers],
            "kind": ["impression" if n % 10 == 9 else "click" for n in numbers],
            "event_time": pa.array([now - (EVENTS - n) * STEP_US for n in numbers], pa.timestamp("us")),
            "user": [n % 3 for n in numbers],
            "item": [f"item-{n % 4}" for n in numbers],
            "price_paid": [float(n) for n in numbers],
            "shop": pa.array([1] * EVENTS, pa.int64()),
            "quantity": [n % 2 for n in numbers],
        }
    )


def test_a_server_that_begins_with_a_checkpoint_answers_as_one_that_folded_all(
    running_run: Path, serve_running: ServeRunning, tmp_path: Path, events: pa.Table
) -> None:
    # Without ids: what is in both is known by its time.
    pq.write_table(events.drop_columns(["event_id"]), tmp_path / "before.parquet")
    until = events.column("event_time")[FOLDED].as_py().replace(tzinfo=datetime.UTC).isoformat()
    folder = tmp_path / "running"
    command = ["running", "fold", str(running_run), str(tmp_path / "before.parquet"), "--to", str(folder)]
    result = CliRunner().invoke(app, [*command, "--until", until, "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    counted = sum(kind == "click" for kind in events.column("kind").to_pylist()[:FOLDED])
    assert (report["events"], report["left_out"]) == (counted, EVENTS - FOLDED)

    log = open_log(f"folder://{tmp_path}/events?partitions=3")
    (batch,) = events.to_batches()
    log.append(1, check_events(batch, time.time_ns() // 1_000).good)
    log.close()
    with_checkpoint, without = serve_running(running_dir=folder), serve_running()
    with httpx.Client(base_url=with_checkpoint.url) as one, httpx.Client(base_url=without.url) as two:
        for user in range(3):
            for item in range(4):
                found = columns_of(one, user, f"item-{item}")
                assert found == columns_of(two, user, f"item-{item}")
                assert found["user_clicks"] > 0
        assert one.get("/v1/model").json()["running"]["ignored"]["before_begin"] == counted
        assert f'embtables_running_ignored_total{{reason="before_begin"}} {counted}.0' in one.get("/metrics").text


def test_what_cannot_be_folded_is_one_clear_sentence(
    running_run: Path, trained_run: Path, tmp_path: Path, events: pa.Table
) -> None:
    path, folder = tmp_path / "before.parquet", tmp_path / "running"
    pq.write_table(events, path)

    def refused(*arguments: object) -> str:
        result = CliRunner().invoke(app, ["running", "fold", *map(str, arguments)])
        assert isinstance(result.exception, ConfigError), result.output
        return str(result.exception)

    assert "no section 'running'" in refused(trained_run, path, "--to", folder)
    assert "name the folder of the checkpoint" in refused(running_run, path)
    assert "name the log of events" in refused(running_run, "--to", folder)
    assert "is no time like" in refused(running_run, path, "--to", folder, "--until", "yesterday")
    assert CliRunner().invoke(app, ["running", "fold", str(running_run), str(path), "--to", str(folder)]).exit_code == 0
    assert "has a checkpoint" in refused(running_run, path, "--to", folder)

"""`make online` in short: everything starts, clicks are joined and trained on, and the server has what was learned."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from embtables.events import open_log
from embtables.pipelines.training.run_content import run_content
from embtables.state.folder.version_folder import StateFolder

EXAMPLE = Path(__file__).parents[1] / "examples" / "simulate" / "online.py"


@pytest.mark.slow
def test_clicks_reach_the_server_as_rows(tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(EXAMPLE),
        "--seconds",
        "12",
        "--visits-per-second",
        "10",
        "--keep",
        str(tmp_path / "w"),
        "--report",
        str(tmp_path / "report.html"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["clicks"] > 0
    page = (tmp_path / "report.html").read_text()
    assert report["served version"] in page
    assert page.count("<polyline") >= 3  # click rates of both servers, and the age of the version
    assert "http" not in page
    version = re.match(r"serving-(\d+), ", report["served version"])
    assert version is not None
    assert int(version[1]) > 1  # beyond what it began with
    log = open_log(f"folder://{tmp_path}/w/events")
    kinds = [kind for entry in log.read(0, None) for kind in entry.events.column("kind").to_pylist()]
    log.close()
    assert kinds.count("click") == report["clicks"]
    (run,) = (tmp_path / "w" / "online").iterdir()
    state = StateFolder(run / "checkpoints")
    trained = run_content(state.manifest("resume", state.sequences("resume")[-1])).state
    assert 0 < trained.rows <= kinds.count("impression")

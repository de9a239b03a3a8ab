"""The routes against their own description: schemathesis draws requests, and finds no fault and no other answer."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.serving.conftest import Serve

# Only the columns of a model can be scored, which the description does not list: such requests may be refused. Errors
# that are described (501, 503) are no faults of the server; those that are none of these are looked for below.
NOT_CHECKED = "positive_data_acceptance,not_a_server_error"


@pytest.mark.parametrize("examples", [20, pytest.param(60, marks=pytest.mark.slow)])
def test_nothing_but_what_is_described(serve: Serve, tmp_path: Path, examples: int) -> None:
    own = serve(live=True)
    tool = shutil.which("schemathesis", path=str(Path(sys.executable).parent)) or shutil.which("schemathesis")
    assert tool is not None
    arguments = [
        f"{own.url}/openapi.json",
        f"--exclude-checks={NOT_CHECKED}",
        f"--max-examples={examples}",
        "--phases=examples,coverage,fuzzing",
        "--generation-deterministic",
        "--continue-on-failure",
        "--max-time=150",
        "--warnings=off",
        "--no-color",
    ]
    done = subprocess.run([tool, "run", *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert int(re.findall(r"(\d+) generated", done.stdout)[0]) > 100
    assert 'status="500"' not in httpx.get(f"{own.url}/metrics").text
    assert own.events("fault") == []

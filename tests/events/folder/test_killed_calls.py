"""A writer killed at calls of appends and of segment rolls: nothing acknowledged is lost, and the log goes on."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.events.folder import killed_calls

SAMPLE = 10  # kills in `make test`; `make crash` does all of them


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_killed_at_any_call_the_log_has_what_was_acknowledged(tmp_path: Path) -> None:
    points = killed_calls.points(tmp_path)
    assert {"pwritev2", "fdatasync", "fsync", "flock", "openat", "unlink", "link"} <= {kill.call for kill in points}
    assert len(points) > 120
    chosen = [points[i] for i in np.linspace(0, len(points) - 1, SAMPLE).astype(int)]
    assert sum(killed_calls.survive_all(tmp_path, chosen).values()) == SAMPLE

"""A trainer killed at system calls of its cuts: the newest version loads, and going on ends as if nothing had been."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from embtables.state.folder.version_folder import LeaseHolder, StateFolder
from tests.faults import kills
from tests.faults.driver import TrainedTable, load, run
from tests.faults.kills import Kill

STEPS = 7
SAMPLE = 24  # kills in `make test`; `make crash` does all of them

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


def undisturbed() -> list[TrainedTable]:
    """The table after each number of steps."""
    rows, found = TrainedTable(), [TrainedTable()]
    for _ in range(STEPS):
        rows.train()
        again = TrainedTable()
        again.apply(rows.content(whole=True))
        found.append(again)
    return found


def assert_same(first: TrainedTable, second: TrainedTable) -> None:
    assert first.step == second.step
    assert first.counts == second.counts
    assert first.weights.keys() == second.weights.keys()
    for key, weights in first.weights.items():
        assert weights.tobytes() == second.weights[key].tobytes()


def survive(folder: Path, kill: Kill, expected: list[TrainedTable]) -> None:
    """Kills a run there, and goes on."""
    assert kills.killed(kills.command(folder, STEPS), kill), f"{kill} did not fire"
    after = load(folder)
    assert_same(after, expected[after.step])
    assert_same(run(folder, STEPS), expected[STEPS])
    assert_same(load(folder), expected[STEPS])
    with LeaseHolder(StateFolder(folder)) as writer:  # a kill in the last cleaning leaves it to the next
        writer.collect({"resume": 2})
    manifests, versions = (len(list((folder / name).iterdir())) for name in ("manifests", "versions"))
    assert manifests == versions <= 6
    shutil.rmtree(folder)


def survive_all(folder: Path, chosen: list[Kill]) -> int:
    """Every kill, two at a time. Returns how many there were."""
    expected = undisturbed()
    with ThreadPoolExecutor(2) as pool:
        done = [pool.submit(survive, folder / str(n), kill, expected) for n, kill in enumerate(chosen)]
        for result in done:
            result.result()
    return len(chosen)


@needs_strace
def test_killed_at_any_call_of_a_cut_nothing_is_lost(tmp_path: Path) -> None:
    points = kills.points(tmp_path, kills.command(tmp_path / "state", STEPS))
    assert {"write", "openat", "fsync", "unlink", "mkdir"} <= {kill.call for kill in points}
    assert any(kill.call.startswith("link") for kill in points)
    assert any(kill.call.startswith("rename") for kill in points)
    assert len(points) > 200
    chosen = [points[i] for i in np.linspace(0, len(points) - 2, SAMPLE).astype(int)]
    assert survive_all(tmp_path, chosen) == SAMPLE

"""`embtables online --drain` over a whole log, killed at random moments and resumed until it has ended."""

from __future__ import annotations

import json
import random
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embtables.events import EventLog
from embtables.events.dead_letters import DeadLetters
from embtables.pipelines.online.run_online import DEAD_LETTERS
from tests.faults import forked
from tests.faults.online import world

_WAIT = 300.0  # seconds


@dataclass(frozen=True)
class Drained:
    """A run that has ended.

    Attributes:
        report: of the process that ended it.
        kills: that hit a process.
        seconds: of the last process.
    """

    run: Path
    report: dict[str, Any]
    kills: int
    seconds: float


def drain(config: Path, kills: int = 0, longest: float = 0.0, rng: random.Random | None = None) -> Drained:
    """Runs to the end.

    Args:
        kills: processes that are killed before one is left alone.
        longest: seconds after which a process is killed at the latest.
    """
    runs, said, hit = config.parent / "runs", config.parent / "said", 0
    while True:
        run = resumable(runs)
        arguments = ["--resume", str(run)] if run is not None else [str(config)]
        said.unlink(missing_ok=True)
        begun = time.monotonic()
        process = forked.command(said, "online", *arguments, "--drain", "--json")
        if hit < kills and rng is not None:
            process.join(rng.uniform(0.0, longest))
            process.kill()
            process.join()
            hit += process.exitcode == -9
            assert process.exitcode in (0, -9), said.read_text()
            continue
        process.join(_WAIT)
        assert process.exitcode == 0, said.read_text()
        (ended,) = runs.iterdir()
        report = json.loads(said.read_text().splitlines()[-1])
        return Drained(ended, report, hit, time.monotonic() - begun)


def resumable(runs: Path) -> Path | None:
    """The run that can be gone on with; one that was killed before its first version is removed."""
    for run in runs.iterdir() if runs.is_dir() else ():
        if list(run.glob("checkpoints/manifests/resume-*")):
            return run
        shutil.rmtree(run)
    return None


def assert_used_once(drained: Drained, log: EventLog) -> world.Joined:
    """Every event of the log was used as the join in plain Python says, counted by its id."""
    joined = world.join(log)
    counts = drained.report["events"]
    named = ("positives", "negatives", "late_positives")
    assert {name: counts.get(name, 0) for name in named} == {name: joined.counts[name] for name in named}
    assert counts["impressions"] - counts.get("duplicate_impressions", 0) == len(joined.used)
    assert world.used_by(drained.run) == joined.used
    assert drained.report["rows"] == sum(joined.used.values())
    letters = DeadLetters(drained.run / DEAD_LETTERS)
    assert {name for part in letters.pending() for name in part["event_id"].to_pylist()} == joined.set_aside
    letters.close()
    return joined

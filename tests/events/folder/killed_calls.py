"""SIGKILL at system calls of appends and of segment rolls: what was acknowledged is there, and the log goes on."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from embtables.events.folder import FolderLog
from tests.contracts.event_log import read_all
from tests.events.events_for_tests import events
from tests.events.folder.appending import OPTIONS
from tests.faults import kills
from tests.faults.kills import Kill

ENTRIES = 14


def _command(root: Path) -> list[str]:
    return [sys.executable, "-m", "tests.events.folder.appending", str(root), str(ENTRIES)]


def points(folder: Path) -> list[Kill]:
    """Every call that a kill may hit, from the opening of a new log on."""
    found = kills.points(folder, _command(folder / "undisturbed"))
    assert len(list((folder / "undisturbed" / "0000").glob("*.events"))) > 1
    return found[:-1]


def survive(folder: Path, kill: Kill) -> None:
    """Kills a writer there, and looks at what it leaves."""
    folder.mkdir()
    strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"inject={kill.call}:signal=KILL:when={kill.nth}"]
    done = subprocess.run([*strace, *_command(folder / "log")], capture_output=True, text=True, check=False)
    assert done.returncode == -9, f"{kill} did not fire: {done.stderr}"
    acknowledged = list(map(int, done.stdout.split()))
    assert acknowledged == list(range(len(acknowledged)))
    with closing(FolderLog(folder / "log", OPTIONS)) as log:
        found = _numbers(log)
        kept = sum(segment.stat().st_size for segment in (folder / "log" / "0000").glob("*.events"))
        first = 0 if kept < OPTIONS.keep_bytes - OPTIONS.segment_bytes else (found or [0])[0]
        # One may have been on its way when it was killed; retention takes no more than it may.
        assert found in (list(range(first, len(acknowledged) + more)) for more in (0, 1)), f"{kill}: {found}"
        log.append(0, events(ENTRIES, 1))
        again = _numbers(log)
    # An entry that was whole, but not acknowledged, is taken over by the next append, which may remove old segments.
    *before, newest = again
    assert newest == ENTRIES
    assert before == list(range(again[0], again[0] + len(before))), f"{kill}: {again}"
    assert max(before, default=-1) >= max(found, default=-1), f"{kill}: {again}"
    with closing(FolderLog(folder / "log", OPTIONS)) as log:
        assert _numbers(log) == again
    shutil.rmtree(folder)


def survive_all(folder: Path, chosen: list[Kill]) -> Counter[str]:
    """Every kill, two at a time. Returns how many there were of each call."""
    with ThreadPoolExecutor(2) as pool:
        for result in [pool.submit(survive, folder / str(n), kill) for n, kill in enumerate(chosen)]:
            result.result()
    return Counter(kill.call for kill in chosen)


def _numbers(log: FolderLog) -> list[int]:
    return [int(entry.events["event_id"][0].as_py()[1:]) for entry in read_all(log, 0)]

"""SIGKILL at chosen system calls of a process, by strace; what a trace without kills shows is where it may be done."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.faults.driver import BEGIN

CALLS = (
    "write,pwrite64,writev,pwritev2,openat,ftruncate,fsync,fdatasync,rename,renameat,renameat2,link,linkat,unlink,unlinkat,"
    "mkdir,mkdirat,rmdir,flock"
)
_CALL = re.compile(r"^\d+ +(\w+)\(")


@dataclass(frozen=True, slots=True)
class Kill:
    """The nth call of this kind, counted from the start of the process."""

    call: str
    nth: int


def command(folder: Path, steps: int) -> list[str]:
    """The trainer without torch."""
    return [sys.executable, "-m", "tests.faults.driver", str(folder), str(steps)]


def points(folder: Path, arguments: list[str]) -> list[Kill]:
    """Every call that a kill may hit after a process has looked for BEGIN, from a run that is not disturbed.

    Args:
        folder: for the trace.
    """
    trace = folder / "trace"
    folder.mkdir(parents=True, exist_ok=True)
    strace = ["strace", "-f", "-qq", "-o", str(trace), "-e", f"trace={CALLS},stat,newfstatat"]
    subprocess.run([*strace, *arguments], check=True, capture_output=True)
    counts: Counter[str] = Counter()
    found: list[Kill] = []
    begun = False
    for line in trace.read_text(errors="replace").splitlines():
        begun = begun or BEGIN in line
        call = _CALL.match(line)
        if call is not None and call[1] in CALLS.split(","):
            counts[call[1]] += 1
            if begun:
                found.append(Kill(call[1], counts[call[1]]))
    return found


def killed(arguments: list[str], kill: Kill, **options: object) -> bool:
    """Runs a process and kills it there. False where it ended by itself, or lived on: the kill did not fire."""
    strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"inject={kill.call}:signal=KILL:when={kill.nth}"]
    done = subprocess.run([*strace, *arguments], capture_output=True, check=False, timeout=300, **options)  # type: ignore[call-overload]
    return bool(done.returncode == -9)

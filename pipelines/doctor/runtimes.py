"""OpenMP runtimes in a process that trains, whatever it imports first."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from embtables.pipelines.doctor.finding import Finding

_WHY = "each runtime starts threads of its own, which take the processor from each other; a process may also hang"
_ORDERS = (("embtables.native", "torch", "pyarrow", "torchrec"), ("pyarrow", "torchrec", "torch", "embtables.native"))
_SECONDS = 120
_SCRIPT = """
import sys
for name in sys.argv[1:]:
    __import__(name)
print({mark!r})
for line in open("/proc/self/maps"):
    print(line.rstrip())
"""
_MARK = "-- maps"


def openmp(text: str) -> list[str]:
    """The OpenMP runtimes among the files that a process has mapped, by its /proc/<pid>/maps."""
    files = {line.split(maxsplit=5)[5] for line in text.splitlines() if len(line.split(maxsplit=5)) == 6}
    names = ("libgomp", "libomp.", "libomp-", "libiomp5")
    return sorted(file for file in files if Path(file).name.startswith(names))


def preloaded(maps: Path = Path("/proc/self/maps")) -> Finding:
    """How many OpenMP runtimes this process has, after torch and the native core."""
    check = "OpenMP runtimes"
    try:
        import torch

        from embtables.native import _core
    except ImportError as error:
        return Finding(
            check, "broken", f"not known: {error}", "nothing trains", "install the packages that are missing"
        )
    del torch, _core
    found = openmp(maps.read_text())
    if len(found) <= 1:
        return Finding(check, "ok", found[0] if found else "none")
    remedy = "look for LD_PRELOAD and for packages that bring one of their own; import those in another process"
    return Finding(check, "broken", ", ".join(found), _WHY, remedy)


def import_orders(orders: Sequence[Sequence[str]] = _ORDERS) -> list[Finding]:
    """Whether torch, torchrec, Arrow and the native core go together in one process, whichever comes first."""
    running = [(order, _started(order)) for order in orders]
    return [_of_order(order, process) for order, process in running]


def _started(order: Sequence[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _SCRIPT.format(mark=_MARK), *order]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _of_order(order: Sequence[str], process: subprocess.Popen[str]) -> Finding:
    check = f"imports: {', '.join(order)}"
    try:
        out, err = process.communicate(timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        remedy = "import them in another order; see OpenMP runtimes"
        return Finding(check, "broken", f"no answer in {_SECONDS} seconds", "training would hang, too", remedy)
    if process.returncode:
        last = (err.strip().splitlines() or [f"ended by signal {-process.returncode}"])[-1]
        remedy = "install the lock: pip install --no-deps -r requirements/lock.txt"
        return Finding(check, "broken", last, "what needs these packages fails in the same way", remedy)
    found = openmp(out.partition(_MARK)[2])
    if len(found) > 1:
        remedy = f"import {order[-1]} first, or install the lock: pip install --no-deps -r requirements/lock.txt"
        return Finding(check, "broken", ", ".join(found), _WHY, remedy)
    return Finding(check, "ok", "one OpenMP runtime" if found else "no OpenMP runtime")

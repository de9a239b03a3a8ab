"""Limits of this process on files and memory, and free memory beside what a run needs."""

from __future__ import annotations

import resource
from pathlib import Path

from embtables.pipelines.config import RunConfig
from embtables.pipelines.doctor.finding import Finding

FEW_FILES, NO_FILES = 4_096, 256
_LITTLE = 10**9  # bytes that any run needs
_SAMPLE_ROWS = 200_000  # fewer than a plan reads, which takes longer and says more
_UNLIMITED = resource.RLIM_INFINITY


def open_files() -> Finding:
    """Whether a process may open as many files as a log of many files, its versions and its ranks need."""
    check = "open files"
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == _UNLIMITED or soft >= FEW_FILES:
        return Finding(check, "ok", "any number" if soft == _UNLIMITED else f"{soft:,}")
    why = "logs of many files, and each rank's connections to all others, need more"
    most = "unlimited" if hard == _UNLIMITED else hard
    raise_hard = "; the hard limit is set in /etc/security/limits.conf, or by --ulimit nofile of a container"
    remedy = f"ulimit -n {most}" if hard == _UNLIMITED or hard >= FEW_FILES else f"ulimit -n {most}{raise_hard}"
    return Finding(check, "broken" if soft < NO_FILES else "warning", f"{soft:,} at most", why, remedy)


def file_size() -> Finding:
    """Whether a process may write files of any size."""
    why = "a version of larger tables cannot be written: the run ends when it is"
    return _size("file size", resource.RLIMIT_FSIZE, why, "ulimit -f unlimited")


def address_space() -> Finding:
    """Whether a process may map as much memory as it likes."""
    why = "tables reserve more addresses than they use memory, so that rows never move"
    return _size("address space", resource.RLIMIT_AS, why, "ulimit -v unlimited")


def _size(check: str, limit: int, why: str, remedy: str) -> Finding:
    soft, _ = resource.getrlimit(limit)
    if soft == _UNLIMITED:
        return Finding(check, "ok", "any size")
    return Finding(check, "warning", f"{_gb(soft)} at most", why, remedy)


def free_memory(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that this process may still take: of the machine, and of the control groups that it is in."""
    lines = (proc / "meminfo").read_text().splitlines()
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    own = [line.split(":", 2)[2] for line in (proc / "self" / "cgroup").read_text().splitlines() if line[:3] == "0::"]
    group = groups / (own[0].lstrip("/") if own else "")
    for folder in (group, *group.parents):
        if not folder.is_relative_to(groups):
            break
        limit = _number(folder / "memory.max")
        if limit is not None:
            used = (_number(folder / "memory.current") or 0) - _of_stat(folder / "memory.stat", "inactive_file")
            found.append(max(0, limit - max(0, used)))
    return min(found)


def memory(free: int, config: RunConfig | None = None) -> Finding:
    """Free memory, beside what a run of one process needs if there is a configuration.

    Raises:
        ConfigError, DataError, StateError: see `embtables plan`.
    """
    check = "memory"
    if config is None:
        if free >= _LITTLE:
            return Finding(check, "ok", f"{_gb(free)} free")
        why = "a run needs about as much before it has rows"
        return Finding(
            check, "warning", f"{_gb(free)} free", why, "end other processes, or raise the container's limit"
        )
    from embtables.pipelines.plan.plan import PlanRequest, plan

    planned = plan(config, PlanRequest(memory_gb=max(free, 1) / 1e9, sample_rows=_SAMPLE_ROWS), timed=False)
    needs = planned.point.memory
    found = f"{_gb(free)} free, the run needs {_gb(needs.total)}"
    remedy = "; ".join(planned.advice.lines)
    if needs.total > free:
        return Finding(check, "broken", found, "the kernel ends the process when its tables have grown", remedy)
    if needs.total + needs.image > free:
        found += f" and up to {_gb(needs.image)} more while a snapshot is written"
        return Finding(check, "warning", found, "the kernel may end the process while it writes a version", remedy)
    return Finding(check, "ok", found)


def _number(file: Path) -> int | None:
    """The number in a file; None if there is none: no such file, or `max`."""
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _of_stat(file: Path, name: str) -> int:
    try:
        lines = [line.split() for line in file.read_text().splitlines()]
    except OSError:
        return 0
    return next((int(line[1]) for line in lines if line[:1] == [name]), 0)


def _gb(number: float) -> str:
    return f"{number / 1e9:,.2f} GB"

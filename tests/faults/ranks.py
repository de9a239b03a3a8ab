"""Part of `make faults`: what may befall the processes of `embtables train --workers 2` on real Ray, and its disk.

Each run must end as one that was left alone, bit for bit: by itself, or resumed by the command that its error names.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks import _harness
from tests.pipelines.ray_nodes_for_tests import ranks_below
from tests.pipelines.ray_runs_for_tests import assert_same, held, make_config, start, steps_of, the_run, until_step

BEGUN = 20  # the step after which something happens: there are versions, and the epoch is not at its end
DISK_BYTES = 12 << 20
Process = subprocess.Popen[str]


@dataclass(frozen=True)
class Fault:
    """What is done to a run, and what it must say."""

    what: str
    strike: Callable[[Process, Path], None]
    says: str
    ends_well: bool


def rank(process: Process, number: int) -> psutil.Process:
    """The process of a rank: rank 0 alone holds the run's lease, hence a lock on its file."""
    found = ranks_below(process)
    assert len(found) == 2, found
    first = next(each for each in found if any(file.path.endswith("lease.lock") for file in each.open_files()))
    return first if number == 0 else next(each for each in found if each != first)


def kill_rank_0(process: Process, folder: Path) -> None:
    rank(process, 0).kill()


def kill_controller(process: Process, folder: Path) -> None:
    every = psutil.Process(process.pid).children(recursive=True)
    (controller,) = [each for each in every if "TrainController" in " ".join(each.cmdline())]
    controller.kill()


def stall(number: int) -> Callable[[Process, Path], None]:
    """Stops a rank until the run has gone on without it, or has ended; then lets it go on, if it is still there."""

    def strike(process: Process, folder: Path) -> None:
        stalled = rank(process, number)
        at = max(steps_of(the_run(folder)))
        stalled.suspend()
        # Going on cuts the figures back to the last version, and adds to them again.
        while process.poll() is None and max(steps_of(the_run(folder))) <= at + BEGUN:
            time.sleep(0.05)
        with suppress(psutil.NoSuchProcess):
            stalled.resume()
            print(f"(the stopped rank was still there, as {stalled.status()})", flush=True)

    return strike


def fill_disk(process: Process, folder: Path) -> None:
    """Takes all room until two versions have failed, then gives it back."""
    checkpoints = the_run(folder).checkpoints
    ballast = folder / "runs" / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    before, changes, seen = list((checkpoints / "manifests").iterdir()), 0, 0
    while changes < 4 and process.poll() is None:  # a folder made and removed, twice
        at = (checkpoints / "versions").stat().st_mtime_ns
        changes, seen = changes + (at != seen), at
        time.sleep(0.001)
    assert process.poll() is not None or len(list((checkpoints / "manifests").iterdir())) <= len(before) + 1
    ballast.unlink()


FULL = "No space left on device; earlier versions are intact; training goes on"
FAULTS = (
    Fault("rank 0 killed", kill_rank_0, "going on from resume-", ends_well=True),
    Fault("Ray's controller killed", kill_controller, "Ray's own process that looks after the ranks", ends_well=False),
    Fault("rank 1 stopped (SIGSTOP), later continued", stall(1), "silent for 60 s", ends_well=True),
    Fault("rank 0 stopped (SIGSTOP), later continued", stall(0), "silent for 60 s", ends_well=True),
    Fault("the disk full for two versions", fill_disk, FULL, ends_well=True),
)


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """The runs lie on a disk of their own."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def survived(folder: Path, fault: Fault, whole: dict[str, Any]) -> tuple[str, float]:
    """Does it to a run; how the run came through, and in how many seconds."""
    make_config(folder)
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    began = time.monotonic()
    process = start(folder, environment, "ranks.yaml", "--workers", 2)
    until_step(folder, BEGUN, process)
    fault.strike(process, folder)
    _, err = process.communicate(timeout=300)
    said = f"{fault.what}: {err}"
    assert fault.says in err, said
    assert "Traceback" not in err, said
    assert (process.returncode == 0) is fault.ends_well, said
    if not fault.ends_well:
        command = err.strip().rpartition("embtables train ")[2].split()
        again = start(folder, environment, *command)
        _, err = again.communicate(timeout=300)
        assert again.returncode == 0, err
    assert_same(held(the_run(folder)), whole)
    return ("ended well" if fault.ends_well else "was resumed"), time.monotonic() - began


def main(only: Sequence[str] = ()) -> None:
    began, rows = time.monotonic(), []
    with tempfile.TemporaryDirectory() as name:
        reference = Path(name) / "whole"
        reference.mkdir()
        make_config(reference)
        process = start(reference, {**os.environ, "PYTHONSAFEPATH": "1"}, "ranks.yaml", "--workers", 2)
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        whole = held(the_run(reference))
        for number, fault in enumerate(FAULTS):
            if only and str(number) not in only:
                continue
            folder = Path(name) / str(number)
            folder.mkdir()
            with small_disk(folder / "runs"):
                outcome, seconds = survived(folder, fault, whole)
            rows.append([fault.what, outcome, f"{seconds:.0f}"])
            print(f"{fault.what}: the run {outcome} after {seconds:.0f} s, with the same bits", flush=True)
    if only:
        return
    where, minutes = _harness.machine(), (time.monotonic() - began) / 60
    about = (
        f"`make faults` on {where['cpu']}, commit {where['commit']}, {where['date']}: {len(rows)} faults of "
        f"`embtables train --workers 2` on Ray in {minutes:.0f} minutes; every run reached the same bits."
    )
    table = _harness.table(["what happened", "the run", "seconds, from its start"], rows)
    _harness.write_section("faults-ranks", f"## Failing ranks\n\n{about}\n\n{table}\n")


if __name__ == "__main__":
    main(sys.argv[1:])

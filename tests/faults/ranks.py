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
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks import _harness
from embtables.pipelines.run_dir import RunDir
from tests.pipelines.distributed.ray_nodes_for_tests import Nodes, ranks_below
from tests.pipelines.distributed.ray_runs_for_tests import (
    assert_same,
    held,
    make_config,
    start,
    steps_of,
    the_run,
    until_step,
)

BEGUN = 20  # the step after which something happens: there are versions, and the epoch is not at its end
DISK_BYTES = 12 << 20
Process = subprocess.Popen[str]


@dataclass(frozen=True)
class Going:
    """A run that something is done to, and the nodes of the cluster that was there for it."""

    process: Process
    folder: Path
    nodes: Nodes | None

    @property
    def run(self) -> RunDir:
        return the_run(self.folder)

    def rank(self, number: int) -> psutil.Process:
        """The process of a rank: rank 0 alone holds the run's lease, hence a lock on its file."""
        above = [self.process] if self.nodes is None else self.nodes.nodes
        found = [each for parent in above for each in ranks_below(parent)]
        assert len(found) == 2, found
        first = next(each for each in found if any(file.path.endswith("lease.lock") for file in each.open_files()))
        return first if number == 0 else next(each for each in found if each != first)


@dataclass(frozen=True)
class Fault:
    """What is done to a run, and what it must say.

    Attributes:
        nodes: CPUs of the nodes of a cluster that is there, its head first; none where the run starts its own.
    """

    what: str
    strike: Callable[[Going], None]
    says: str
    ends_well: bool
    nodes: tuple[int, ...] = ()


def kill_rank_0(going: Going) -> None:
    going.rank(0).kill()


def kill_controller(going: Going) -> None:
    every = psutil.Process(going.process.pid).children(recursive=True)
    (controller,) = [each for each in every if "TrainController" in " ".join(each.cmdline())]
    controller.kill()


def stall(number: int, *, with_its_node: bool = False) -> Callable[[Going], None]:
    """Stops a rank until the run has gone on without it, or has ended; then lets it go on, if it is still there.

    Ray kills a rank that is stopped, but not one whose node is.
    """

    def strike(going: Going) -> None:
        rank = going.rank(number)
        stopped = node_of(rank, going) if with_its_node else [rank]
        at = max(steps_of(going.run))
        for each in stopped:
            each.suspend()
        # Going on cuts the figures back to the last version, and adds to them again.
        while going.process.poll() is None and max(steps_of(going.run)) <= at + BEGUN:
            time.sleep(0.05)
        assert rank.is_running() or not with_its_node
        for each in stopped:
            with suppress(psutil.NoSuchProcess):
                each.resume()
        _, left = psutil.wait_procs([rank], timeout=60)
        assert not left, f"the rank that was stopped goes on beside the others, as {rank}"

    return strike


def node_of(rank: psutil.Process, going: Going) -> list[psutil.Process]:
    """All processes of a rank's node."""
    assert going.nodes is not None
    (node,) = [each for each in going.nodes.nodes if rank in ranks_below(each)]
    return [psutil.Process(node.pid), *psutil.Process(node.pid).children(recursive=True)]


@contextmanager
def full_disk(going: Going) -> Iterator[None]:
    """Meanwhile there is no room at all."""
    ballast = going.folder / "runs" / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    yield
    ballast.unlink()


def fill_disk_to_the_end(going: Going) -> None:
    """What is freed meanwhile is taken too."""
    with full_disk(going), (going.folder / "runs" / "ballast").open("ab", buffering=0) as file:
        while going.process.poll() is None:
            with suppress(OSError):
                file.write(bytes(4096))
                continue
            time.sleep(0.01)


def fill_disk(going: Going) -> None:
    """Takes all room until two versions have failed, then gives it back."""
    with full_disk(going):
        until_two_have_failed(going.process, going.run.checkpoints)


def until_two_have_failed(process: Process, checkpoints: Path) -> None:
    before, changes, seen = list((checkpoints / "manifests").iterdir()), 0, 0
    while changes < 4 and process.poll() is None:  # a folder made and removed, twice
        at = (checkpoints / "versions").stat().st_mtime_ns
        changes, seen = changes + (at != seen), at
        time.sleep(0.001)
    assert process.poll() is not None or len(list((checkpoints / "manifests").iterdir())) <= len(before) + 1


FULL = "No space left on device; earlier versions are intact; "
FAULTS = (
    Fault("rank 0 killed", kill_rank_0, "going on from resume-", ends_well=True),
    Fault("Ray's controller killed", kill_controller, "Ray's own process that looks after the ranks", ends_well=False),
    Fault("rank 1 stopped (SIGSTOP), later continued", stall(1), "silent for 60 s", ends_well=True),
    Fault("rank 0 stopped (SIGSTOP), later continued", stall(0), "silent for 60 s", ends_well=True),
    Fault("the disk full for two versions", fill_disk, FULL + "training goes on", ends_well=True),
    Fault("the disk full to the end", fill_disk_to_the_end, FULL + "go on from the last one with: ", ends_well=False),
    Fault("rank 1 on a cluster stopped, later continued", stall(1), "silent for 60 s", ends_well=True, nodes=(2,)),
    Fault(
        "rank 1's node stopped, later continued",
        stall(1, with_its_node=True),
        "silent for 60 s",
        ends_well=True,
        nodes=(0, 1, 1, 1),
    ),
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
    with ExitStack() as stack:
        nodes = stack.enter_context(Nodes()) if fault.nodes else None
        for cpus in fault.nodes if nodes is not None else ():
            nodes.add(cpus)
        environment = {**os.environ, "PYTHONSAFEPATH": "1"} if nodes is None else nodes.environment()
        where = [] if nodes is None else ["--ray-address", nodes.address]
        began = time.monotonic()
        process = start(folder, environment, "ranks.yaml", "--workers", 2, *where)
        until_step(folder, BEGUN, process)
        fault.strike(Going(process, folder, nodes))
        _, err = process.communicate(timeout=300)
        said = f"{fault.what}: {err}"
        assert fault.says in err, said
        assert "Traceback" not in err, said
        assert process.returncode == (0 if fault.ends_well else 1), said
        if not fault.ends_well:
            command = err.strip().rpartition("embtables train ")[2].split()
            again = start(folder, environment, *command)
            _, err = again.communicate(timeout=300)
            assert again.returncode == 0, err
    run = the_run(folder)
    assert_same(held(run), whole)
    assert steps_of(run) == sorted(set(steps_of(run)))
    assert not [*run.path.glob("rank0-*"), *run.path.glob("error-*")]
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

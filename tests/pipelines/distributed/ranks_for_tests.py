"""What the ranks of a training run do in tests; each is a process of its own."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import torch

from embtables.errors import EmbtablesError
from embtables.pipelines.config import RunConfig
from embtables.pipelines.distributed import worker as ray_worker
from embtables.pipelines.online import run_online
from embtables.pipelines.run_dir import RunDir
from embtables.pipelines.training import train as training
from embtables.pipelines.training.learner import Learner
from embtables.pipelines.training.signals import InterruptedRunError
from embtables.shard.world import World
from embtables.state.write.version_writer import VersionWriter


def train(world: World, config: RunConfig, folder: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Trains in the folder of a run that was made; the report, and the rows this rank holds at the end."""
    run = RunDir.open(Path(folder))
    report = training.train(config, run=run, world=world, shown=False)
    return report, {}


def train_from(world: World, config: RunConfig, folder: str, former: str) -> dict[str, Any]:
    """Trains with what another run has learned."""
    run, former_run = RunDir.open(Path(folder)), RunDir.open(Path(former))
    return training.train(config, run=run, former=former_run, world=world, shown=False)


def resume(world: World, folder: str, overrides: tuple[str, ...]) -> dict[str, Any]:
    """Goes on with a run."""
    torch.set_num_threads(1)
    return training.resume(RunDir.open(Path(folder)), overrides, world=world, shown=False)


def work_with_a_slow_disk(world: World, settings: dict[str, Any], may: str) -> list[bool]:
    """Works as a rank on Ray does; rank 1's disk takes nothing of a version before rank 0 has met an error.

    Args:
        may: a FIFO.

    Returns:
        Of rank 0, whether it then knew of a mistake of another.
    """
    write, close = os.write, VersionWriter.close
    allowed, knew = [], []

    def slow(handle: int, content: memoryview) -> int:
        if threading.current_thread().name.startswith("state.1") and not allowed:
            allowed.append(Path(may).read_bytes())
        return write(handle, content)

    def closing(chain: VersionWriter) -> None:
        if not chain.is_written(0.0):
            knew.append(ray_worker.Settings.from_json(settings).error_file.exists())
            Path(may).write_bytes(b"now")
        close(chain)

    if world.rank:
        os.write = slow
    else:
        VersionWriter.close = closing  # type: ignore[method-assign]
    ray_worker.work({"settings": settings, "model": None})
    return knew


def work_on_a_disk_that_fills(world: World, settings: dict[str, Any], ballast: str, before: str) -> None:
    """Works as a rank on Ray does; there is no room for anything from the second version, or the report, on."""
    cut, report, cuts = VersionWriter.cut, RunDir.finish, count()

    def fill() -> None:
        with Path(ballast).open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))

    def cutting(chain: VersionWriter, *arguments: Any) -> None:
        if next(cuts) == 1 and before == "version":
            chain.wait()
            if world.rank == 0:
                fill()
        cut(chain, *arguments)

    def reporting(run: RunDir, *arguments: Any) -> None:
        fill()
        report(run, *arguments)

    VersionWriter.cut, RunDir.finish = cutting, reporting  # type: ignore[method-assign]
    ray_worker.work({"settings": settings, "model": None})


def error_of(world: World, config: RunConfig, folder: str) -> tuple[str, str]:
    """The kind and the text of the error that training ends with, and that the ranks still hear each other."""
    try:
        training.train(config, run=RunDir.open(Path(folder)), world=world, shown=False)
    except EmbtablesError as error:
        world.gather_bytes(b"here")
        return type(error).__name__, str(error)
    return "", ""


def online(world: World, config: RunConfig, folder: str, kind: Any) -> dict[str, Any]:
    """An online run, of events to the end of their log, in the folder of a run that was made."""
    run = RunDir.open(Path(folder))
    return run_online.online(config, kind, run=run, world=world, drains=kind == "events", shown=False)


def resume_online(world: World, folder: str) -> dict[str, Any]:
    """Goes on with an online run, of events to the end of their log."""
    torch.set_num_threads(1)
    return run_online.resume(RunDir.open(Path(folder)), world=world, drains=True, shown=False)


def online_until_asked_to_stop(world: World, config: RunConfig, folder: str, steps: int) -> str:
    """Replays a log until rank 1 gets a SIGTERM in a step; what is said then."""
    step = Learner.train_step
    taken = count()

    def asked(*arguments: Any) -> torch.Tensor:
        if next(taken) == steps and world.rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(*arguments)

    Learner.train_step = asked  # type: ignore[method-assign]
    try:
        run_online.online(config, "replay", run=RunDir.open(Path(folder)), world=world, shown=False)
    except InterruptedRunError as error:
        return error.message
    finally:
        Learner.train_step = step  # type: ignore[method-assign]
    return ""


def online_until_all_are_killed(world: World, config: RunConfig, folder: str, steps: int) -> None:
    """Trains on events as they come; each rank is killed in the step after so many, a few steps after a checkpoint."""
    step = Learner.train_step
    taken = count()

    def killed(*arguments: Any) -> torch.Tensor:
        if next(taken) == steps:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(*arguments)

    Learner.train_step = killed  # type: ignore[method-assign]
    run_online.online(config, "events", run=RunDir.open(Path(folder)), world=world, shown=False)

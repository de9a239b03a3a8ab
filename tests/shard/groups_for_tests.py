"""Real gloo groups of spawned processes, kept across the cases of a test run: one for each size."""

from __future__ import annotations

import datetime
import importlib
import multiprocessing
import os
import tempfile
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any


class Group:
    """`size` processes that run functions of modules, each with its world.

    Args:
        size: how many ranks.
        timeout_seconds: how long they wait for each other.
    """

    def __init__(self, size: int, timeout_seconds: int = 60) -> None:
        context = multiprocessing.get_context("spawn")
        self._folder = tempfile.TemporaryDirectory()
        meet = Path(self._folder.name) / "meet"
        self._pipes: list[Connection] = []
        self._processes = []
        for rank in range(size):
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(rank, size, str(meet), there, timeout_seconds), daemon=True)
            process.start()
            there.close()
            self._pipes.append(here)
            self._processes.append(process)

    def run(self, function: str, *arguments: Any) -> list[Any]:
        """Runs `module:function(world, *arguments)` at every rank; what each returned. Raises what one raised."""
        for pipe in self._pipes:
            pipe.send((function, arguments))
        found = [pipe.recv() for pipe in self._pipes]
        for done, value in found:
            if not done:
                raise AssertionError(value)
        return [value for _, value in found]

    def close(self) -> None:
        """Ends the processes."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(20)
            process.kill()
        self._folder.cleanup()


def _serve(rank: int, size: int, meet: str, pipe: Connection, timeout_seconds: int) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    import torch
    import torch.distributed as dist

    from embtables.shard.world import ProcessGroup

    torch.set_num_threads(1)
    timeout = datetime.timedelta(seconds=timeout_seconds)
    dist.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=size, timeout=timeout)
    world = ProcessGroup()
    while True:
        try:
            function, arguments = pipe.recv()
        except EOFError:
            return
        module, name = function.split(":")
        try:
            pipe.send((True, getattr(importlib.import_module(module), name)(world, *arguments)))
        except Exception:
            pipe.send((False, traceback.format_exc()))

"""Processes that tests kill, without their start-up: forked from one that has imported all."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path

_MODULES = [
    "embtables.pipelines.online.run_online",
    "embtables.serving.app",
    "embtables.serving.versions.follow",
    "tests.serving.versions.numbered",
]


def started(target: Callable[..., None], *arguments: object) -> ForkServerProcess:
    """A process that runs a function of a module."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_MODULES)
    process = context.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def command(said: Path, *arguments: str) -> ForkServerProcess:
    """The command line `embtables`; what it prints is appended to a file."""
    return started(_command, said, arguments)


def _command(said: Path, arguments: tuple[str, ...]) -> None:
    handle = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    from embtables.pipelines.cli.main import main

    sys.argv = ["embtables", *arguments]
    main()

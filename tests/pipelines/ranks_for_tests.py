"""What the ranks of a training run do in tests; each is a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from embtables.shard.world import World
from pipelines import train as training
from pipelines.config import RunConfig
from pipelines.run_dir import RunDir


def train(world: World, config: RunConfig, folder: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Trains in the folder of a run that was made; the report, and the rows this rank holds at the end."""
    run = RunDir.open(Path(folder))
    report = training.train(config, run=run, world=world, shown=False)
    return report, {}


def train_from(world: World, config: RunConfig, folder: str, former: str) -> dict[str, Any]:
    """Trains with what another run has learned."""
    run, origin = RunDir.open(Path(folder)), RunDir.open(Path(former))
    return training.train(config, run=run, former=origin, world=world, shown=False)


def resume(world: World, folder: str, overrides: tuple[str, ...]) -> dict[str, Any]:
    """Goes on with a run."""
    torch.set_num_threads(1)
    return training.resume(RunDir.open(Path(folder)), overrides, world=world, shown=False)

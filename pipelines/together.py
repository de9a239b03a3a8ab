"""What the ranks of one run agree on besides tables: what a step is made of, who does what only one may do."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch

from embtables.batch import Batch
from embtables.shard.world import World

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StepTotals:
    """Of a step's whole batch: rows, and the sum of their weights; and whether a rank was asked to stop."""

    rows: int
    weight: float
    stop: bool


def totals(world: World, batch: Batch, *, stop: bool) -> StepTotals:
    """What the ranks' parts of a batch make together; called by all of them."""
    weight = float(batch.num_rows) if batch.weight is None else float(batch.weight.sum(dtype=torch.float64))
    if world.size == 1:
        return StepTotals(batch.num_rows, weight, stop)
    told = torch.tensor([batch.num_rows, weight, stop], dtype=torch.float64)
    world.all_reduce(told)
    rows, whole, stops = told.tolist()
    return StepTotals(int(rows), whole, stops > 0)


def rank_0_first(world: World, work: Callable[[], T]) -> T:
    """Every rank does it, rank 0 before the others: what it leaves on the disk they find."""
    if world.rank == 0:
        done = work()
        world.broadcast_bytes(b"done")
        return done
    world.broadcast_bytes(b"")
    return work()


def summed(world: World, counts: Mapping[str, int]) -> dict[str, int]:
    """Counts by name, over all ranks."""
    if world.size == 1:
        return dict(counts)
    found: Counter[str] = Counter()
    for told in world.gather_bytes(json.dumps(dict(counts)).encode()):
        found.update(json.loads(told))
    return dict(found)

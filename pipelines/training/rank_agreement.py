"""What the ranks of one run agree on besides tables: what a step is made of, who does what only one may do."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch

from embtables.errors import DataError
from embtables.inputs.batch import Batch
from embtables.pipelines.sources.protocol import SourcePosition
from embtables.shard.world import World

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StepTotals:
    """For a step's whole batch: its rows, the sum of their weights, and whether a rank was asked to stop."""

    rows: int
    weight: float
    stop: bool


def totals(world: World, batch: Batch, position: SourcePosition, *, stop: bool) -> StepTotals:
    """What the ranks' parts of a batch make together; called by all of them.

    Raises:
        DataError: the parts are of different batches.
    """
    weight = batch.total_weight
    if world.size == 1:
        return StepTotals(batch.num_rows, weight, stop)
    place = float(zlib.crc32(json.dumps(position.to_json()).encode()))
    sums = torch.tensor([batch.num_rows, weight, stop, place], dtype=torch.float64)
    world.all_reduce(sums)
    rows, whole, stops, places = sums.tolist()
    if places != place * world.size:
        raise DataError("the ranks have read the log differently: all need the same files, complete")
    return StepTotals(int(rows), whole, stops > 0)


def need_same(world: World, what: str, found: object) -> None:
    """Raises DataError at all ranks if what they found (JSON) differs."""
    if world.size == 1:
        return
    gathered = world.gather_bytes(json.dumps(found).encode())
    for rank, other in enumerate(gathered):
        if other != gathered[0]:
            raise DataError(f"{what} differ: rank 0 has {gathered[0].decode()}, rank {rank} {other.decode()}")


def rank_0_first(world: World, work: Callable[[], T]) -> T:
    """Every rank does it, rank 0 before the others, so that they find its files on the disk."""
    if world.rank == 0:
        done = work()
        world.broadcast_bytes(b"done")
        return done
    world.broadcast_bytes(b"")
    return work()


def rank_0_says(world: World, look: Callable[[], bool]) -> bool:
    """What rank 0 finds."""
    if world.size == 1:
        return look()
    return world.broadcast_bytes(b"yes" if world.rank == 0 and look() else b"no") == b"yes"


def names_of_all_ranks(world: World, names: Iterable[str]) -> list[str]:
    """The names that any rank has, in one order."""
    if world.size == 1:
        return sorted(names)
    gathered = world.gather_bytes(json.dumps(list(names)).encode())
    return sorted({name for each in gathered for name in json.loads(each)})


def summed(world: World, counts: Mapping[str, int]) -> dict[str, int]:
    """Counts by name, over all ranks."""
    if world.size == 1:
        return dict(counts)
    found: Counter[str] = Counter()
    for gathered in world.gather_bytes(json.dumps(dict(counts)).encode()):
        found.update(json.loads(gathered))
    return dict(found)


def greatest(world: World, own: Iterable[int | None]) -> int | None:
    """The greatest number of any rank; None if there is none."""
    numbers = [number for number in own if number is not None]
    if world.size > 1:
        numbers = [n for found in world.gather_bytes(json.dumps(numbers).encode()) for n in json.loads(found)]
    return max(numbers, default=None)

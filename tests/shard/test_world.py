"""What every world must do, real or of threads."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch

from embtables.errors import WorldError
from embtables.shard.world import SingleRank, World
from tests.shard.groups_for_tests import Group
from tests.shard.threads_for_tests import in_threads

Run = Callable[[int, str], list[Any]]


@pytest.fixture(params=["gloo", "threads"])
def run(request: pytest.FixtureRequest, group: Callable[[int], Group]) -> Run:
    def of(size: int, name: str) -> list[Any]:
        if request.param == "gloo":
            return group(size).run(f"{__name__}:{name}")
        return in_threads(size, globals()[name])

    return of


def parts(world: World) -> Any:
    """Rank r sends r + 10 * to, (r + to) % 3 times."""
    sent = [(world.rank + to) % 3 for to in range(world.size)]
    given = torch.cat([torch.full((n, 2), world.rank + 10.0 * to) for to, n in enumerate(sent)])
    received = [(of + world.rank) % 3 for of in range(world.size)]
    out = torch.empty(sum(received), 2)
    world.all_to_all(out, given, received, sent)
    return out.tolist()


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_parts_go_to_their_ranks(run: Run, size: int) -> None:
    for rank, found in enumerate(run(size, "parts")):
        assert found == [[of + 10.0 * rank] * 2 for of in range(size) for _ in range((of + rank) % 3)]


def sums(world: World) -> Any:
    values = torch.tensor([0.1, 1e8, -1e8]) * (world.rank + 1)
    world.all_reduce(values)
    whole = torch.tensor([world.rank, 1])
    world.all_reduce(whole)
    return values.tolist(), whole.tolist()


@pytest.mark.parametrize("size", [1, 2, 3])
def test_sums_are_the_same_everywhere(run: Run, size: int) -> None:
    found = run(size, "sums")
    assert all(each == found[0] for each in found)
    assert found[0][1] == [sum(range(size)), size]


def gathered(world: World) -> Any:
    found = world.all_gather(torch.arange(world.rank * 2))
    nothing = world.all_gather(torch.empty(0, dtype=torch.uint8))
    sent = world.broadcast_bytes(f"rank {world.rank}".encode() * 1000)
    assert world.broadcast_bytes(b"1" if world.rank == 0 else b"22") == b"1"
    assert world.broadcast_bytes(b"" if world.rank == 0 else b"22") == b""
    gathered_bytes = world.gather_bytes(b"x" * world.rank)
    return [each.tolist() for each in found], [len(each) for each in nothing], sent, gathered_bytes


@pytest.mark.parametrize("size", [1, 2, 4])
def test_what_all_have_is_gathered(run: Run, size: int) -> None:
    for found in run(size, "gathered"):
        each, nothing, sent, gathered_bytes = found
        assert each == [list(range(2 * rank)) for rank in range(size)]
        assert nothing == [0] * size
        assert sent == b"rank 0" * 1000
        assert gathered_bytes == [b"x" * rank for rank in range(size)]


def of_another(world: World) -> Any:
    first, second = world.another(), world.another()
    out = [torch.tensor([world.rank]), torch.tensor([10 * world.rank]), torch.tensor([100 * world.rank])]
    for each, values in zip((second, world, first), out, strict=True):
        each.all_reduce(values)
    return [int(values) for values in out]


def test_worlds_of_the_same_ranks_do_not_mix(run: Run) -> None:
    assert run(3, "of_another") == [[3, 30, 300]] * 3


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 1024])
def test_buckets_are_dealt_out_whole(size: int) -> None:
    class Of(SingleRank):
        def __init__(self) -> None:
            self.size = size

    owned = [Of().buckets(rank) for rank in range(size)]
    assert owned[0][0] == 0
    assert owned[-1][1] == 1024
    assert all(a[1] == b[0] for a, b in pairwise(owned))
    assert max(b - a for a, b in owned) - min(b - a for a, b in owned) <= 1


def test_a_rank_that_leaves_is_reported() -> None:
    def work(world: World) -> None:
        if world.rank == 1:
            raise ZeroDivisionError
        with pytest.raises(WorldError, match="gone"):
            world.all_reduce(torch.zeros(1))

    with pytest.raises(ZeroDivisionError):
        in_threads(3, work)

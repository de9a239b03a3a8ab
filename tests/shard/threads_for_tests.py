"""A world whose ranks are threads of one process: quick to make, so that hypothesis can make many."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor

from embtables.errors import WorldError
from embtables.shard.world import World

T = TypeVar("T")


class _Board:
    """Where the ranks lay what they give, and wait for each other."""

    def __init__(self, size: int) -> None:
        self.barrier = threading.Barrier(size, timeout=60)
        self.laid: list[Any] = [None] * size
        self.others: list[_Board] = []


class Threads(World):
    """One rank of such a world."""

    def __init__(self, rank: int, size: int, board: _Board) -> None:
        self.rank, self.size, self._board = rank, size, board
        self._made = 0

    def _all(self, given: Any) -> list[Any]:
        try:
            self._board.laid[self.rank] = given
            self._board.barrier.wait()
            found = list(self._board.laid)
            self._board.barrier.wait()
        except threading.BrokenBarrierError:
            raise WorldError("another rank is gone", rank=self.rank) from None
        return found

    def all_to_all(self, out: Tensor, given: Tensor, received: Sequence[int], sent: Sequence[int]) -> None:
        parts = [parts[self.rank] for parts in self._all([p.clone() for p in given.split(list(sent))])]
        assert [len(part) for part in parts] == list(received), "ranks disagree on what they send"
        out.copy_(torch.cat(parts))

    def all_reduce(self, values: Tensor) -> None:
        parts = self._all(values.clone())
        assert all(part.shape == values.shape for part in parts), "ranks sum different shapes"
        values.copy_(torch.stack(parts).sum(dim=0))

    def all_gather(self, values: Tensor) -> list[Tensor]:
        return self._all(values.clone())

    def another(self) -> World:
        if self.rank == 0:
            self._board.others.append(_Board(self.size))
        self._all(None)
        self._made += 1
        return Threads(self.rank, self.size, self._board.others[self._made - 1])

    def leave(self) -> None:
        """The others shall not wait for this one any more."""
        self._board.barrier.abort()


def in_threads(size: int, work: Callable[[World], T]) -> list[T]:
    """What `work` returns at each rank. Torch's kernels may differ by the number of threads: each has one."""
    board = _Board(size)

    def run(rank: int) -> T:
        torch.set_num_threads(1)
        world = Threads(rank, size, board)
        try:
            return work(world)
        except BaseException:
            world.leave()
            raise

    with ThreadPoolExecutor(size) as pool:
        futures = [pool.submit(run, rank) for rank in range(size)]
        errors = [error for future in futures if (error := future.exception()) is not None]
        for error in sorted(errors, key=lambda e: isinstance(e, WorldError)):
            raise error
        return [future.result() for future in futures]

"""Dealing blocks to ranks: a lockstep simulation that every rank runs alike.

In every step each rank in turn takes the next block of the global order while it has fewer than a batch's rows left,
then uses up to a batch of them. It needs nothing but the number of rows of each block, so all ranks agree without
talking, take the same number of steps, and a position says for all of them what is left.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pipelines.reader.position import Position


@dataclass(frozen=True, slots=True)
class Share:
    """Rows start..stop-1 of a block, for one rank's batch."""

    block: int
    start: int
    stop: int


class Dealer:
    """Deals the rest of an epoch.

    Args:
        num_blocks: blocks in the epoch's order.
        rows_of: rows of a block, after filters; called once a block, in order.
        batch_size: rows a rank and step.
        world_size: number of ranks.
        position: where to go on.
    """

    def __init__(
        self, num_blocks: int, rows_of: Callable[[int], int], batch_size: int, world_size: int, position: Position
    ) -> None:
        self._num_blocks = num_blocks
        self._rows_of = rows_of
        self._batch_size = batch_size
        self._epoch = position.epoch
        self._next = position.next_block
        self._queues: list[deque[Share]] = [deque() for _ in range(world_size)]
        for number, (block, used) in enumerate(position.partial):
            self._queues[number % world_size].append(Share(block, used, rows_of(block)))

    def steps(self) -> Iterator[tuple[list[list[Share]], Position]]:
        """For every step the shares of each rank, and the position after it."""
        while True:
            step = [self._take(queue) for queue in self._queues]
            if not any(step):
                return
            yield step, self._position()

    def _take(self, queue: deque[Share]) -> list[Share]:
        waiting = sum(s.stop - s.start for s in queue)
        while waiting < self._batch_size and self._next < self._num_blocks:
            rows = self._rows_of(self._next)
            if rows:
                queue.append(Share(self._next, 0, rows))
            waiting += rows
            self._next += 1
        taken: list[Share] = []
        wanted = self._batch_size
        while wanted and queue:
            share = queue.popleft()
            used = min(wanted, share.stop - share.start)
            if used:
                taken.append(Share(share.block, share.start, share.start + used))
            if share.start + used < share.stop:
                queue.appendleft(Share(share.block, share.start + used, share.stop))
            wanted -= used
        return taken

    def _position(self) -> Position:
        left = sorted((s.block, s.start) for queue in self._queues for s in queue)
        return Position(self._epoch, self._next, tuple(left))

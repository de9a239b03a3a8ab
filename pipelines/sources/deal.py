"""Dealing blocks: which rows of which blocks make each batch, and which of these are a rank's.

It needs nothing but the number of rows of each block, so all ranks agree without communication, take the same number of
steps, and a position says for all of them what is left.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from embtables.errors import StateError
from embtables.inputs.values import Int64s
from embtables.pipelines.sources.position import Position

_OTHER = "it is not the log that the run was trained on; give that one, or begin a new run with --from"


@dataclass(frozen=True, slots=True)
class Share:
    """Rows start..stop-1 of a block, for one batch."""

    block: int
    start: int
    stop: int


class Dealer:
    """Deals the rest of an epoch.

    Args:
        num_blocks: blocks in the epoch's order.
        rows_of: rows of a block, after filters; called once per block, in order.
        batch_size: rows of a batch; only the last may hold fewer.
        position: where to go on.

    Raises:
        StateError: there are fewer blocks or rows than the position says were handed out.
    """

    def __init__(self, num_blocks: int, rows_of: Callable[[int], int], batch_size: int, position: Position) -> None:
        self._num_blocks = num_blocks
        self._rows_of = rows_of
        self._batch_size = batch_size
        self._epoch = position.epoch
        self._files = position.files
        self._next = position.next_block
        if position.next_block > num_blocks:
            raise StateError(f"the log has {num_blocks:,} blocks, of which {position.next_block:,} were read: {_OTHER}")
        self._queue = deque(Share(block, used, rows_of(block)) for block, used in position.partial)
        for share in self._queue:
            if share.start > share.stop:
                rows = f"{share.stop:,} rows, of which {share.start:,}"
                raise StateError(f"block {share.block} of the log has {rows} were read: {_OTHER}")

    def steps(self) -> Iterator[tuple[list[Share], Position]]:
        """The shares of every batch, and the position after it."""
        while shares := self._take():
            left = sorted((s.block, s.start) for s in self._queue)
            yield shares, Position(self._epoch, self._next, tuple(left), self._files)

    def _take(self) -> list[Share]:
        waiting = sum(s.stop - s.start for s in self._queue)
        while waiting < self._batch_size and self._next < self._num_blocks:
            rows = self._rows_of(self._next)
            if rows:
                self._queue.append(Share(self._next, 0, rows))
            waiting += rows
            self._next += 1
        taken: list[Share] = []
        wanted = self._batch_size
        while wanted and self._queue:
            share = self._queue.popleft()
            used = min(wanted, share.stop - share.start)
            if used:
                taken.append(Share(share.block, share.start, share.start + used))
            if share.start + used < share.stop:
                self._queue.appendleft(Share(share.block, share.start + used, share.stop))
            wanted -= used
        return taken


def part_of(shares: Sequence[Share], rank: int, world_size: int) -> list[Share]:
    """A rank's part of a batch: of its B rows those from B * r // N up to B * (r + 1) // N; at least one share.

    >>> part_of([Share(0, 7, 10), Share(1, 0, 2)], 1, 2)
    [Share(block=0, start=9, stop=10), Share(block=1, start=0, stop=2)]
    """
    rows = sum(s.stop - s.start for s in shares)
    first, end = rows * rank // world_size, rows * (rank + 1) // world_size
    found, at = [], 0
    for share in shares:
        start, stop = (share.start + min(max(edge - at, 0), share.stop - share.start) for edge in (first, end))
        at += share.stop - share.start
        if start < stop:
            found.append(Share(share.block, start, stop))
    return found or [Share(shares[0].block, shares[0].start, shares[0].start)]


def needed(rows: int, used: int, waiting: int, batch_size: int, rank: int, world_size: int) -> Int64s:
    """Places in a block, ascending, of all rows that may be the rank's.

    Args:
        rows: of the block.
        used: how many of its first rows went into batches before.
        waiting: rows of the blocks before it that its first batch begins with.

    The last batch that it begins is made up by blocks to come, or is short: what it has there is the rank's at some
    number of its rows.
    """
    places = np.arange(used, rows)
    row = waiting + places - used
    rest = (waiting + rows - used) % batch_size
    begun = row >= waiting + rows - used - rest
    row %= batch_size
    first = np.where(begun, rest * rank // world_size, batch_size * rank // world_size)
    found: Int64s = places[(row >= first) & (row < batch_size * (rank + 1) // world_size)]
    return found

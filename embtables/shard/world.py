"""`World`: the ranks that train together, and what they send each other.

All ranks call every method that communicates, in the same order. One world serves one thread of each rank:
another thread uses another world (`another`). `SingleRank` is the only rank there is.
"""

from __future__ import annotations

import datetime
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from embtables.errors import WorldError
from embtables.keyspace import NUM_BUCKETS, Buckets

TIMEOUT_SECONDS = 60
T = TypeVar("T")


class World(ABC):
    """The ranks 0..size-1; this process is one of them.

    All methods raise WorldError if a rank is gone or silent.
    """

    rank: int
    size: int

    @abstractmethod
    def all_to_all(self, out: Tensor, given: Tensor, received: Sequence[int], sent: Sequence[int]) -> None:
        """Parts of `given` (sum of `sent`, ...) go to the ranks, those of `out` (sum of `received`, ...) come to us.

        Args:
            received, sent: by rank, how long its part is along the first axis.
        """

    @abstractmethod
    def all_reduce(self, values: Tensor) -> None:
        """Replaces values by their sum over ranks. Shapes must be equal; all ranks get the same bits."""

    @abstractmethod
    def all_gather(self, values: Tensor) -> list[Tensor]:
        """The values (n,) of every rank; n may differ, the type may not."""

    @abstractmethod
    def another(self) -> World:
        """A world of the same ranks that another thread may use meanwhile."""

    def buckets(self, rank: int | None = None) -> Buckets:
        """The buckets [first, end) of the key space that a rank owns; by default this rank."""
        of = self.rank if rank is None else rank
        return of * NUM_BUCKETS // self.size, (of + 1) * NUM_BUCKETS // self.size

    def part_of(self, n: int) -> slice:
        """This rank's part of n things that all ranks have."""
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def broadcast_bytes(self, content: bytes) -> bytes:
        """Rank 0's content."""
        return self.gather_bytes(content if self.rank == 0 else b"")[0]

    def gather_bytes(self, content: bytes) -> list[bytes]:
        """The contents of all ranks."""
        own = torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else _no_bytes()
        return [bytes(part.numpy()) for part in self.all_gather(own)]


class SingleRank(World):
    """One rank."""

    rank, size = 0, 1

    def all_to_all(self, out: Tensor, given: Tensor, received: Sequence[int], sent: Sequence[int]) -> None:
        """See World."""
        out.copy_(given)

    def all_reduce(self, values: Tensor) -> None:
        """See World."""

    def all_gather(self, values: Tensor) -> list[Tensor]:
        """See World."""
        return [values]

    def another(self) -> World:
        """See World."""
        return self


class ProcessGroup(World):
    """The ranks of a torch.distributed process group; by default the one that was initialised.

    Raises:
        WorldError: there are more ranks than buckets.
    """

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self._group = dist.group.WORLD if group is None else group
        self.rank, self.size = dist.get_rank(self._group), dist.get_world_size(self._group)
        if self.size > NUM_BUCKETS:
            raise WorldError(f"there are {self.size:,} ranks; {NUM_BUCKETS:,} buckets of keys allow at most as many")

    def all_to_all(self, out: Tensor, given: Tensor, received: Sequence[int], sent: Sequence[int]) -> None:
        """See World."""
        self._communicate(lambda: dist.all_to_all_single(out, given, list(received), list(sent), group=self._group))

    def all_reduce(self, values: Tensor) -> None:
        """See World."""
        self._communicate(lambda: dist.all_reduce(values, group=self._group))

    def all_gather(self, values: Tensor) -> list[Tensor]:
        """See World. Shorter ones are filled up for the way."""
        sizes = torch.empty(self.size, dtype=torch.int64)
        own = torch.tensor([len(values)])
        self._communicate(lambda: dist.all_gather_single(sizes, own, group=self._group))
        longest = int(sizes.max())
        filled = torch.zeros(longest, dtype=values.dtype)
        filled[: len(values)] = values
        found = torch.empty(self.size * longest, dtype=values.dtype)
        if longest:
            self._communicate(lambda: dist.all_gather_single(found, filled, group=self._group))
        return [part[:n] for part, n in zip(found.view(self.size, longest), sizes.tolist(), strict=True)]

    def another(self) -> World:
        """See World."""
        ranks = dist.get_process_group_ranks(self._group)
        timeout = datetime.timedelta(seconds=TIMEOUT_SECONDS)
        return ProcessGroup(self._communicate(lambda: dist.new_group(ranks, timeout=timeout)))

    def _communicate(self, call: Callable[[], T]) -> T:
        """What a call of torch.distributed returns; its failure as a WorldError."""
        try:
            return call()
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0]
            raise WorldError(
                f"another rank is gone or has been silent for {TIMEOUT_SECONDS} s: {reason}", rank=self.rank
            ) from error


def _no_bytes() -> Tensor:
    return torch.empty(0, dtype=torch.uint8)

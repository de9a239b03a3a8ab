"""Keys that any rank names, at the ranks that own them: for reading, writing and deleting rows by key."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from embtables.errors import EmbtablesError, WorldError
from embtables.keyspace import buckets_of
from embtables.shard.world import World


def owners_of_buckets(world: World) -> np.ndarray[tuple[int], np.dtype[np.uint16]]:
    """(1,024,) the rank that owns each bucket."""
    found = np.empty(world.buckets(world.size - 1)[1], np.uint16)
    for rank in range(world.size):
        found[slice(*world.buckets(rank))] = rank
    return found


class Route:
    """The route of this rank's keys (n,) to their owners, and of the answers back. All ranks make one and use it alike.

    Attributes:
        keys: (m,) those of all ranks that this one owns, in the order of ranks.
    """

    def __init__(self, world: World, seed: int, keys: Tensor) -> None:
        self._world = world
        owners = owners_of_buckets(world)[buckets_of(keys.numpy(), seed)]
        self._order = torch.from_numpy(np.argsort(owners, kind="stable"))
        sent = torch.from_numpy(np.bincount(owners, minlength=world.size).astype(np.int64))
        received = torch.empty_like(sent)
        world.all_to_all(received, sent, [1] * world.size, [1] * world.size)
        self._sent, self._received = sent.tolist(), received.tolist()
        self.keys = self.give(keys)

    def give(self, values: Tensor) -> Tensor:
        """The owners' parts (m, ...) of what the ranks have for their keys (n, ...)."""
        out = torch.empty(sum(self._received), *values.shape[1:], dtype=values.dtype)
        self._world.all_to_all(out, values[self._order].contiguous(), self._received, self._sent)
        return out

    def answer(self, values: Tensor) -> Tensor:
        """For this rank's keys (n, ...) what their owners have for them (m, ...)."""
        back = torch.empty(sum(self._sent), *values.shape[1:], dtype=values.dtype)
        self._world.all_to_all(back, values.contiguous(), self._sent, self._received)
        found = torch.empty_like(back)
        found[self._order] = back
        return found


def to_all(world: World, values: Tensor) -> Tensor:
    """The values (n, ...) of all ranks, one rank's after another's."""
    return torch.cat(world.all_gather(values.reshape(-1))).view(-1, *values.shape[1:])


def agree(world: World, error: EmbtablesError | None) -> None:
    """Raises at every rank if one failed: its error there, at the others a WorldError with its message."""
    messages = world.gather_bytes(b"" if error is None else str(error).encode())
    if error is not None:
        raise error
    for rank, message in enumerate(messages):
        if message:
            raise WorldError(f"rank {rank} failed: {message.decode()}", rank=world.rank)

"""One lookup's way to the owners of its keys and back: distinct keys out, rows in; gradients out at the step.

asking side: KeyExchange (native) makes distinct keys, pools rows, sums gradients
owner:       a lookup in its local row store, the keys of all ranks in rank order, block after block
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from embtables.native import _core
from embtables.rows.protocol import RowStore
from embtables.shard.world import Alone, World

Sizes = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Blocks:
    """What of a lookup is deduplicated together: the slots of a table, or each slot.

    Attributes:
        tables: the table of each block.
        of_slot: the block of each slot of the lookup.
    """

    tables: tuple[int, ...]
    of_slot: tuple[int, ...]

    @classmethod
    def by_table(cls, slot_tables: Sequence[int]) -> Blocks:
        """Blocks of the tables, in the order in which slots name them first."""
        tables = tuple(dict.fromkeys(slot_tables))
        return cls(tables, tuple(tables.index(table) for table in slot_tables))

    @classmethod
    def by_slot(cls, slot_tables: Sequence[int]) -> Blocks:
        """A block a slot."""
        return cls(tuple(slot_tables), tuple(range(len(slot_tables))))


@dataclass(slots=True)
class Asked:
    """A lookup's keys at their owners.

    Attributes:
        exchange: this rank's keys.
        blocks: of the lookup.
        rows: the message with their rows.
        context: of the local store's lookup of all ranks' keys.
        keys, counts: (n,) those keys, and how often each occurred (None in inference); by rank, block after block.
        received: (ranks, blocks) how many keys each rank asked this one for.
        gradient: the message with their gradients, and which blocks have one; None as long as no backward came.
        is_over: its step is done.
    """

    exchange: _core.KeyExchange
    blocks: Blocks
    rows: Tensor
    context: object
    keys: Tensor
    counts: Tensor | None
    received: Sizes
    gradient: Tensor | None = None
    has_gradient: list[bool] = field(default_factory=list)
    is_over: bool = False


class Messenger:
    """Sends keys and rows between the ranks.

    A message with rows has for each rank as many floats as there are blocks, telling which blocks have gradients, and
    then the rows of the rank's keys, block after block.

    Args:
        dims: D of each table.
        replicated: tables whose rows this rank has all: nothing of them travels.
    """

    def __init__(self, world: World, local: RowStore, dims: Sequence[int], replicated: Collection[int]) -> None:
        self._world = world
        self._local = local
        self._dims = tuple(dims)
        self._replicated = replicated
        self._buffers = _core.Buffers()

    def take(self, floats: int) -> Tensor:
        """Memory for a message."""
        return torch.from_numpy(self._buffers.take(floats))

    def _ranks_of(self, blocks: Blocks) -> World:
        """Where a lookup's messages go: nowhere if all of its tables are replicated, which all ranks know."""
        return Alone() if all(table in self._replicated for table in blocks.tables) else self._world

    def ask(self, exchange: _core.KeyExchange, blocks: Blocks, *, keep: bool) -> Asked:
        """Has the owners look up the distinct keys, and brings the rows."""
        world, ranks, num_blocks = self._ranks_of(blocks), self._world.size, len(blocks.tables)
        sizes = torch.from_numpy(exchange.sizes())
        asked = torch.empty_like(sizes)
        world.all_to_all(asked, sizes, [num_blocks] * ranks, [num_blocks] * ranks)
        sent, received = (s.numpy().reshape(ranks, num_blocks) for s in (sizes, asked))
        keys = _bring(world, torch.from_numpy(exchange.keys()), received, sent)
        counts = _bring(world, torch.from_numpy(exchange.counts()), received, sent) if keep else None
        given = self.take(self.floats(blocks, received).sum())
        context = self._look_up(blocks, keys, counts, received, given, keep=keep)
        rows = self.take(exchange.num_floats)
        world.all_to_all(rows, given, self.floats(blocks, sent).tolist(), self.floats(blocks, received).tolist())
        return Asked(exchange, blocks, rows, context, keys, counts, received)

    def floats(self, blocks: Blocks, sizes: Sizes) -> Sizes:
        """(ranks,) how long each rank's part of a message is."""
        dims = np.array([self._dims[table] for table in blocks.tables])
        found: Sizes = (sizes * dims).sum(axis=1) + len(blocks.tables)
        return found

    def _look_up(
        self, blocks: Blocks, keys: Tensor, counts: Tensor | None, received: Sizes, given: Tensor, *, keep: bool
    ) -> object:
        """The keys of a table in the order of ranks: as in the lookup of one process that had all their rows."""
        parts = [of for block in range(len(blocks.tables)) for of in spans(received, block)]
        tables = [table for table in blocks.tables for _ in range(self._world.size)]
        often = None if counts is None else [counts[part] for part in parts]
        _, context = self._local.gather(
            tables, [keys[p] for p in parts], keep=keep, counts=often, out=self.rows_of(blocks, received, given)
        )
        return context

    def rows_of(self, blocks: Blocks, sizes: Sizes, message: Tensor) -> list[Tensor]:
        """The rows (n, D) of each block and, within it, each rank, where they lie in a message."""
        at = np.cumsum(np.concatenate([[0], self.floats(blocks, sizes)[:-1]])) + len(blocks.tables)
        found = []
        for block, table in enumerate(blocks.tables):
            floats = sizes[:, block] * self._dims[table]
            found += [message[a : a + n].view(-1, self._dims[table]) for a, n in zip(at, floats, strict=True)]
            at = at + floats
        return found

    def send_gradients(self, asked: Asked) -> tuple[list[int], list[Tensor | None]]:
        """Brings the gradients of a lookup's keys to their owners, whose local stores keep them for the update; but not
        those of replicated tables.

        Returns:
            What this rank got as an owner: tables, and gradients (n, D) or none, of each block and rank.
        """
        exchange, blocks, world, ranks = asked.exchange, asked.blocks, self._ranks_of(asked.blocks), self._world.size
        sent = exchange.sizes().reshape(ranks, len(blocks.tables))
        sent_floats, received_floats = self.floats(blocks, sent), self.floats(blocks, asked.received)
        message = self.take(exchange.num_floats) if asked.gradient is None else asked.gradient
        marks = torch.tensor(asked.has_gradient or [False] * len(blocks.tables), dtype=torch.float32)
        for end, n in zip(np.cumsum(sent_floats).tolist(), sent_floats.tolist(), strict=True):
            message[end - n : end - n + len(marks)] = marks
        out = self.take(int(received_floats.sum()))
        world.all_to_all(out, message, received_floats.tolist(), sent_floats.tolist())
        begins = (np.cumsum(received_floats) - received_floats).tolist()
        marked = torch.stack([out[at : at + len(blocks.tables)] for at in begins]).T.reshape(-1) > 0
        rows = self.rows_of(blocks, asked.received, out)
        used = [each if has else None for each, has in zip(rows, marked.tolist(), strict=True)]
        tables = [table for table in blocks.tables for _ in range(ranks)]
        sharded = [None if table in self._replicated else each for table, each in zip(tables, used, strict=True)]
        self._local.add_row_gradients(asked.context, sharded)
        return tables, used


def _bring(world: World, values: Tensor, received: Sizes, sent: Sizes) -> Tensor:
    out = torch.empty(int(received.sum()), dtype=values.dtype)
    world.all_to_all(out, values, received.sum(axis=1).tolist(), sent.sum(axis=1).tolist())
    return out


def spans(sizes: Sizes, block: int) -> list[slice]:
    """Where a block's keys lie among those of all (ranks, blocks): of each rank."""
    ends = np.cumsum(sizes).reshape(sizes.shape)[:, block].tolist()
    return [slice(end - n, end) for end, n in zip(ends, sizes[:, block].tolist(), strict=True)]

"""One lookup's way to the owners of its keys and back: distinct keys out, rows in; gradients out at the step.

asking side: KeyExchange (native) makes distinct keys, pools rows, sums gradients
owner:       a lookup in its local row store, the keys of all ranks in rank order, block after block
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from embtables.native import _core
from embtables.rows.protocol import RowStore
from embtables.shard.world import World

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
        received: (ranks, blocks) how many keys each rank asked this one for.
        gradient: the message with their gradients, and which blocks have one; None as long as no backward came.
        is_over: its step is done.
    """

    exchange: _core.KeyExchange
    blocks: Blocks
    rows: Tensor
    context: object
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
    """

    def __init__(self, world: World, local: RowStore, dims: Sequence[int]) -> None:
        self._world = world
        self._local = local
        self._dims = tuple(dims)
        self._buffers = _core.Buffers()

    def take(self, floats: int) -> Tensor:
        """Memory for a message."""
        return torch.from_numpy(self._buffers.take(floats))

    def ask(self, exchange: _core.KeyExchange, blocks: Blocks, *, keep: bool) -> Asked:
        """Has the owners look up the distinct keys, and brings the rows."""
        world, num_blocks = self._world, len(blocks.tables)
        sizes = torch.from_numpy(exchange.sizes())
        asked = torch.empty_like(sizes)
        world.all_to_all(asked, sizes, [num_blocks] * world.size, [num_blocks] * world.size)
        sent, received = (s.numpy().reshape(world.size, num_blocks) for s in (sizes, asked))
        keys = self._bring(torch.from_numpy(exchange.keys()), received, sent)
        counts = self._bring(torch.from_numpy(exchange.counts()), received, sent) if keep else None
        given = self.take(self.floats(blocks, received).sum())
        context = self._look_up(blocks, keys, counts, received, given, keep=keep)
        rows = self.take(exchange.num_floats)
        world.all_to_all(rows, given, self.floats(blocks, sent).tolist(), self.floats(blocks, received).tolist())
        return Asked(exchange, blocks, rows, context, received)

    def _bring(self, values: Tensor, received: Sizes, sent: Sizes) -> Tensor:
        out = torch.empty(int(received.sum()), dtype=values.dtype)
        self._world.all_to_all(out, values, received.sum(axis=1).tolist(), sent.sum(axis=1).tolist())
        return out

    def floats(self, blocks: Blocks, sizes: Sizes) -> Sizes:
        """(ranks,) how long each rank's part of a message is."""
        dims = np.array([self._dims[table] for table in blocks.tables])
        found: Sizes = (sizes * dims).sum(axis=1) + len(blocks.tables)
        return found

    def _look_up(
        self, blocks: Blocks, keys: Tensor, counts: Tensor | None, received: Sizes, given: Tensor, *, keep: bool
    ) -> object:
        """The keys of a table in the order of ranks: as in the lookup of one process that had all their rows."""
        ends = np.cumsum(received).reshape(received.shape)
        parts = [
            slice(int(ends[rank, block] - received[rank, block]), int(ends[rank, block]))
            for block in range(len(blocks.tables))
            for rank in range(self._world.size)
        ]
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
        """Brings the gradients of a lookup's keys to their owners, whose local stores keep them for the update.

        Returns:
            What this rank got as an owner: tables, and gradients (n, D) or none, of each block and rank.
        """
        exchange, blocks, world = asked.exchange, asked.blocks, self._world
        sent = exchange.sizes().reshape(world.size, len(blocks.tables))
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
        self._local.add_row_gradients(asked.context, used)
        return [table for table in blocks.tables for _ in range(world.size)], used

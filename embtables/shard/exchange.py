"""The path of one lookup to the owners of its keys and back: distinct keys out, rows in; gradients out at the step.

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
from embtables.rows.protocol import OwnedLookup, OwnedRows, PartStore, Segments
from embtables.shard.world import SingleRank, World

Sizes = npt.NDArray[np.int64]
_MARK_FLOATS = 1  # for each block of a message with rows
# Rows and their gradients travel as float32, whatever dtype the rows of a table have.
FLOAT_BYTES = np.dtype(np.float32).itemsize


@dataclass(frozen=True, slots=True)
class Blocks:
    """What of a lookup is deduplicated together: the features of a table, or each feature.

    Attributes:
        tables: the table of each block.
        of_feature: the block of each feature of the lookup.
    """

    tables: tuple[int, ...]
    of_feature: tuple[int, ...]

    @classmethod
    def by_table(cls, feature_tables: Sequence[int]) -> Blocks:
        """Blocks of the tables, in the order in which features name them first."""
        tables = tuple(dict.fromkeys(feature_tables))
        return cls(tables, tuple(tables.index(table) for table in feature_tables))

    @classmethod
    def by_feature(cls, feature_tables: Sequence[int]) -> Blocks:
        """A block for each feature."""
        return cls(tuple(feature_tables), tuple(range(len(feature_tables))))


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the rows of each rank and block lie in a message: for each rank as many floats as there are blocks, which
    mark the blocks that have gradients, and then the rows of its keys, block after block.

    Attributes:
        sizes: (ranks, blocks) keys.
        lengths: how many floats the part of each rank has.
        marks: (ranks, blocks) where the float of each block is.
        places: (ranks, blocks) where its rows begin.
    """

    sizes: Sizes
    lengths: list[int]
    marks: Sizes
    places: Sizes

    @classmethod
    def of(cls, sizes: Sizes, dims: Sequence[int]) -> Layout:
        """Of so many keys (ranks, blocks) with D of each block."""
        floats, blocks = sizes * np.array(dims), len(dims)
        lengths = blocks * _MARK_FLOATS + floats.sum(axis=1)
        begins = (np.cumsum(lengths) - lengths)[:, None]
        return cls(
            sizes,
            lengths.tolist(),
            begins + np.arange(blocks),
            begins + blocks * _MARK_FLOATS + np.cumsum(floats, axis=1) - floats,
        )

    @property
    def num_floats(self) -> int:
        """Of the message."""
        return sum(self.lengths)

    def segments(self, features: Sequence[int]) -> Segments:
        """The same for whoever looks up the keys: block after block."""
        bounds = np.concatenate([[0], np.cumsum(self.sizes.T)])
        return Segments(tuple(features), bounds, np.ascontiguousarray(self.places.T).reshape(-1))


@dataclass(slots=True)
class Asked:
    """A lookup of training, its keys at their owners.

    Attributes:
        exchange: this rank's keys.
        blocks: of the lookup.
        sent: where its rows lie, and their gradients.
        rows: the message with them.
        received, segments: where those lie that this rank is asked for as an owner.
        owned: the local store's lookup of all ranks' keys.
        keys, counts: (n,) those keys, and how often each occurred; by block and rank.
        gradient: the message with their gradients, and which blocks have one; None as long as no backward came.
        is_over: its step is done.
    """

    exchange: _core.KeyExchange
    blocks: Blocks
    sent: Layout
    rows: Tensor
    received: Layout
    segments: Segments
    owned: OwnedLookup
    keys: Tensor
    counts: Tensor
    gradient: Tensor | None = None
    has_gradient: list[bool] = field(default_factory=list)
    is_over: bool = False


@dataclass(frozen=True, slots=True)
class OwnersGradients:
    """What an owner got of a lookup's gradients.

    Attributes:
        message: they lie in it as the rows did.
        used: (blocks * ranks,) whose were used.
    """

    message: Tensor
    used: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class LookupBytes:
    """Bytes that a lookup sends to other ranks and back, by what they are.

    Attributes:
        keys, counts, rows, gradients: of the distinct keys that other ranks own.
        headers: how many keys each block has, and which blocks have gradients.
        calls: of all_to_all.
    """

    keys: float
    counts: float
    rows: float
    gradients: float
    headers: float
    calls: int

    @classmethod
    def of(cls, keys: Sequence[float], dims: Sequence[int], others: int, *, trains: bool) -> LookupBytes:
        """Of a lookup as `Messenger` sends it, and its gradients if it trains.

        Args:
            keys: distinct keys of each block that other ranks own; these may be means over steps.
            dims: D of each block.
            others: how many other ranks there are.
        """
        words, plain = _core.words_of_key(trains), _core.words_of_key(False)
        rows = FLOAT_BYTES * sum(n * dim for n, dim in zip(keys, dims, strict=True))
        messages = 2 if trains else 1  # with rows
        return cls(
            keys=np.dtype(np.int32).itemsize * plain * sum(keys),
            counts=np.dtype(np.int32).itemsize * (words - plain) * sum(keys),
            rows=rows,
            gradients=rows * trains,
            headers=len(dims) * others * (np.dtype(np.int64).itemsize + messages * _MARK_FLOATS * FLOAT_BYTES),
            calls=2 + messages,
        )

    @property
    def total(self) -> float:
        """All of them."""
        return self.keys + self.counts + self.rows + self.gradients + self.headers


class Messenger:
    """Sends keys and rows between the ranks.

    Args:
        dims: D of each table.
        replicated: tables whose rows this rank has all: nothing of them travels.
    """

    def __init__(self, world: World, local: PartStore, dims: Sequence[int], replicated: Collection[int]) -> None:
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
        return SingleRank() if all(table in self._replicated for table in blocks.tables) else self._world

    def read(self, exchange: _core.KeyExchange, blocks: Blocks) -> Tensor:
        """Has the owners read the rows of the distinct keys; the message with them."""
        sent, received, segments, keys, _ = self._ask(exchange, blocks, counted=False)
        return self._bring_rows(blocks, self._local.owned(segments, keys), sent, received)

    def train(self, exchange: _core.KeyExchange, blocks: Blocks) -> Asked:
        """Has the owners look up the distinct keys for training, and brings the rows."""
        sent, received, segments, keys, counts = self._ask(exchange, blocks, counted=True)
        assert counts is not None
        owned = self._local.train_owned(segments, keys, counts)
        rows = self._bring_rows(blocks, owned, sent, received)
        return Asked(exchange, blocks, sent, rows, received, segments, owned, keys, counts)

    def _bring_rows(self, blocks: Blocks, owned: OwnedRows, sent: Layout, received: Layout) -> Tensor:
        given = self.take(received.num_floats)
        owned.rows_into(given)
        rows = self.take(sent.num_floats)
        self._ranks_of(blocks).all_to_all(rows, given, sent.lengths, received.lengths)
        return rows

    def _ask(
        self, exchange: _core.KeyExchange, blocks: Blocks, *, counted: bool
    ) -> tuple[Layout, Layout, Segments, Tensor, Tensor | None]:
        """The keys that the ranks ask this one for: where their rows lie, and how often each occurred."""
        world, ranks, num_blocks = self._ranks_of(blocks), self._world.size, len(blocks.tables)
        sizes = torch.from_numpy(exchange.sizes())
        asked = torch.empty_like(sizes)
        world.all_to_all(asked, sizes, [num_blocks] * ranks, [num_blocks] * ranks)
        dims = [self._dims[table] for table in blocks.tables]
        sent, received = (Layout.of(s.numpy().reshape(ranks, num_blocks), dims) for s in (sizes, asked))
        keys, counts = _bring_keys(world, exchange, received.sizes, sent.sizes, counted=counted)
        return sent, received, received.segments(blocks.tables), keys, counts

    def send_gradients(self, asked: Asked) -> OwnersGradients:
        """Brings the gradients of a lookup's keys to their owners, whose local stores keep them for the update; but not
        those of replicated tables.

        Returns:
            What this rank got as an owner.
        """
        sent, received, tables = asked.sent, asked.received, asked.blocks.tables
        message = self.take(asked.exchange.num_floats) if asked.gradient is None else asked.gradient
        message.numpy()[sent.marks] = asked.has_gradient or [False] * len(tables)
        out = self.take(received.num_floats)
        self._ranks_of(asked.blocks).all_to_all(out, message, received.lengths, sent.lengths)
        used = (out.numpy()[received.marks] > 0.0).T
        travels = np.array([table not in self._replicated for table in tables])
        asked.owned.add_message(out, (used & travels[:, None]).reshape(-1))
        return OwnersGradients(out, used.reshape(-1))


def _bring_keys(
    world: World, exchange: _core.KeyExchange, received: Sizes, sent: Sizes, *, counted: bool
) -> tuple[Tensor, Tensor | None]:
    """What the ranks ask this one for, and how often each key occurred, by block and rank."""
    words = _core.words_of_key(counted)
    out = np.empty(words * int(received.sum()), np.int32)
    parts = ((words * of.sum(axis=1)).tolist() for of in (received, sent))
    world.all_to_all(torch.from_numpy(out), torch.from_numpy(exchange.asked(counted)), *parts)
    keys, counts = _core.by_block(out, np.ascontiguousarray(received).reshape(-1), len(received), counted)
    return torch.from_numpy(keys), torch.from_numpy(counts) if counted else None

"""`ShardedRowStore`: a row store whose rows are spread over several ranks, each owning the keys of its buckets.

Lookups go to the owners at once; gradients wait for the step, so that backward communicates nothing (docs/sharding.md).
All methods that read or change rows are called by all ranks alike, each with what its part of the batch needs; those
that list or capture are about the rows that this rank owns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from embtables.errors import EmbtablesError, StateError
from embtables.native import _core, isa
from embtables.rows.content import TableContent, Words
from embtables.rows.protocol import Ability, Capture, Changes, KeyState, Lookup, PartStore, PooledLookup, RowsLookup
from embtables.rows.stored_table import StoredTable
from embtables.shard.agreement import Limits
from embtables.shard.copies import CopiedGradients, OwnedCapture, joined
from embtables.shard.exchange import Asked, Blocks, Messenger
from embtables.shard.routing import Route, agree, owners_of_buckets, to_all
from embtables.shard.world import World

_MOST_OPEN = 64  # lookups of training since the last step
MakeLocal = Callable[[Sequence[StoredTable], Sequence[int]], PartStore]


@dataclass(frozen=True, slots=True, eq=False)
class _PooledLookup:
    """See PooledLookup."""

    lookup: Lookup
    asked: Asked
    messenger: Messenger

    def add_gradient(self, gradient: Tensor, *, of_weights: bool) -> Tensor | None:
        """See PooledLookup."""
        lookup, asked, threads = self.lookup, self.asked, torch.get_num_threads()
        values = gradient.detach().float().contiguous().numpy()
        offsets, weights = lookup.offsets.numpy(), None if lookup.weights is None else lookup.weights.numpy()
        message = self.messenger.take(asked.exchange.num_floats)
        asked.exchange.sum_pooled(values, offsets, weights, lookup.num_rows, threads, message.numpy())
        _keep(asked, message, [True] * len(asked.blocks.tables))
        if not of_weights:
            return None
        out = torch.empty(len(lookup.keys))
        asked.exchange.dots(asked.rows.numpy(), offsets, lookup.num_rows, values, threads, out.numpy())
        return out


@dataclass(frozen=True, slots=True, eq=False)
class _RowsLookup:
    """See RowsLookup."""

    asked: Asked
    messenger: Messenger

    def add_gradients(self, gradients: Sequence[Tensor | None]) -> None:
        """See RowsLookup."""
        values = [None if g is None else g.detach().float().contiguous().numpy() for g in gradients]
        message = self.messenger.take(self.asked.exchange.num_floats)
        if any(value is None for value in values):
            message.zero_()
        self.asked.exchange.sum_gathered(values, torch.get_num_threads(), message.numpy())
        _keep(self.asked, message, [value is not None for value in values])


def _keep(asked: Asked, message: Tensor, has_gradient: list[bool]) -> None:
    """Keeps a gradient for the step; a second one of the same lookup is added."""
    if asked.is_over:
        between = f"a step, advance or {_MOST_OPEN} other lookups lie between this lookup and its backward"
        raise StateError(f"{between}: its rows may be gone")
    if asked.gradient is not None:
        message.add_(asked.gradient)
        has_gradient = [had or has for had, has in zip(asked.has_gradient, has_gradient, strict=True)]
    asked.gradient, asked.has_gradient = message, has_gradient


class ShardedRowStore:
    """Row store over the ranks of a world.

    Args:
        tables: as any row store has them.
        feature_tables: the table of each feature.
        world: the ranks; there is one for the thread that trains.
        make_local: makes the row store of the rows that this rank has.
        replicated: numbers of fixed tables whose rows every rank has all, the same everywhere.
    """

    def __init__(
        self,
        tables: Sequence[StoredTable],
        feature_tables: Sequence[int],
        world: World,
        make_local: MakeLocal,
        replicated: Collection[int] = (),
    ) -> None:
        self._replicated = frozenset(replicated)
        self._tables = tuple(
            table if number in self._replicated else replace(table, buckets=world.buckets())
            for number, table in enumerate(tables)
        )
        self._feature_tables = tuple(feature_tables)
        self._world = world
        self._local = make_local(self._tables, range(len(tables)))
        self.abilities: frozenset[Ability] = self._local.abilities - {Ability.BESIDE}
        self._owners = owners_of_buckets(world)
        dims = [table.config.dim for table in tables]
        self._messenger = Messenger(world, self._local, dims, self._replicated)
        self._open: list[Asked] = []
        self._copied = CopiedGradients(world, self._local, self._tables, self._replicated)
        self._all_given = True
        self._limits = Limits(world, self._local, self._tables)

    def _dim(self, feature: int) -> int:
        return self._tables[self._feature_tables[feature]].config.dim

    def _exchange(self, lookup: Lookup, blocks: Blocks) -> _core.KeyExchange:
        """The distinct keys of a lookup."""
        return _core.KeyExchange(
            np.array([self._tables[table].seed for table in blocks.tables], np.uint64),
            np.array([self._tables[table].config.dim for table in blocks.tables], np.int32),
            np.array(blocks.of_feature, np.int32),
            lookup.keys.contiguous().numpy(),
            lookup.offsets.numpy(),
            lookup.num_rows,
            self._owners,
            np.array([self._world.rank if t in self._replicated else -1 for t in blocks.tables], np.int32),
            self._world.size,
            len(blocks.tables),
            torch.get_num_threads(),
            isa(),
        )

    def _train(self, exchange: _core.KeyExchange, blocks: Blocks) -> Asked:
        asked = self._messenger.train(exchange, blocks)
        if len(self._open) == _MOST_OPEN:
            self._settle()
        self._open.append(asked)
        return asked

    def _by_table(self, lookup: Lookup) -> tuple[Lookup, _core.KeyExchange, Blocks]:
        """A pooled lookup as it is sent."""
        lookup = replace(lookup, weights=None if lookup.weights is None else lookup.weights.detach().contiguous())
        blocks = Blocks.by_table([self._feature_tables[f] for f in lookup.features])
        return lookup, self._exchange(lookup, blocks), blocks

    def pooled(self, lookup: Lookup) -> Tensor:
        """See RowReader."""
        lookup, exchange, blocks = self._by_table(lookup)
        return self._sums(lookup, exchange, self._messenger.read(exchange, blocks))

    def train_pooled(self, lookup: Lookup) -> tuple[Tensor, PooledLookup]:
        """See RowTrainer."""
        lookup, exchange, blocks = self._by_table(lookup)
        asked = self._train(exchange, blocks)
        return self._sums(lookup, exchange, asked.rows), _PooledLookup(lookup, asked, self._messenger)

    def _sums(self, lookup: Lookup, exchange: _core.KeyExchange, rows: Tensor) -> Tensor:
        width = sum(map(self._dim, lookup.features))
        out = self._messenger.take(lookup.num_rows * width).view(lookup.num_rows, width)
        weights = None if lookup.weights is None else lookup.weights.numpy()
        offsets, threads = lookup.offsets.numpy(), torch.get_num_threads()
        exchange.pooled(rows.numpy(), offsets, weights, lookup.num_rows, threads, out.numpy())
        return out

    def _by_feature(self, features: Sequence[int], keys: Sequence[Tensor]) -> tuple[_core.KeyExchange, Blocks]:
        """A lookup of single rows as it is sent: each feature's keys are one bag."""
        bags = torch.tensor([0, *np.cumsum([len(k) for k in keys])])
        lookup = Lookup(tuple(features), torch.cat(list(keys)), bags, None, 1)
        blocks = Blocks.by_feature([self._feature_tables[f] for f in features])
        return self._exchange(lookup, blocks), blocks

    def gather(self, features: Sequence[int], keys: Sequence[Tensor]) -> list[Tensor]:
        """See RowReader."""
        exchange, blocks = self._by_feature(features, keys)
        return self._rows_of(features, keys, exchange, self._messenger.read(exchange, blocks))

    def train_rows(self, features: Sequence[int], keys: Sequence[Tensor]) -> tuple[list[Tensor], RowsLookup]:
        """See RowTrainer."""
        exchange, blocks = self._by_feature(features, keys)
        asked = self._train(exchange, blocks)
        return self._rows_of(features, keys, exchange, asked.rows), _RowsLookup(asked, self._messenger)

    def _rows_of(
        self, features: Sequence[int], keys: Sequence[Tensor], exchange: _core.KeyExchange, rows: Tensor
    ) -> list[Tensor]:
        found = [torch.empty(len(k), self._dim(f)) for f, k in zip(features, keys, strict=True)]
        for position, out in enumerate(found):
            exchange.gather(rows.numpy(), position, torch.get_num_threads(), out.numpy())
        return found

    def _settle(self) -> None:
        """Brings the gradients kept so far to the owners, lookup after lookup: all ranks have made the same ones."""
        self._all_given &= not self._open
        try:
            for asked in self._open:
                self._copied.note(asked, self._messenger.send_gradients(asked))
        finally:
            self._end_open()

    def _end_open(self) -> None:
        """No backward of these lookups counts any more."""
        for asked in self._open:
            asked.is_over, asked.gradient = True, None
        self._open.clear()

    def _settle_all(self) -> None:
        """The same before a step: copied rows' gradients too, of which every rank then has the sum."""
        self._settle()
        if not self._all_given:
            self._copied.give()
            self._all_given = True

    def gradient_norm(self) -> float:
        """See RowStore. Every rank's part, with its copies of rows counted once."""
        self._settle_all()
        squares = torch.tensor([self._local.gradient_norm() ** 2], dtype=torch.float64)
        self._world.all_reduce(squares)
        if not bool(squares.isfinite()):
            return math.inf
        return math.sqrt(max(0.0, float(squares) - (self._world.size - 1) * self._copied.squares()))

    def set_learning_rate_factor(self, factor: float) -> None:
        """See RowStore."""
        self._local.set_learning_rate_factor(factor)

    def update(self, gradient_scale: float) -> None:
        """See RowStore."""
        self._settle_all()
        self._copied.count_refused(gradient_scale)
        self._local.update(gradient_scale)
        self._copied.end_step()
        self._limits.enforce()

    def advance(self, table: int, now: int) -> None:
        """See RowStore."""
        self._refuse_open("advance comes before the step's first lookup")
        self._end_open()
        self._local.advance(table, now)

    def discard(self) -> None:
        """See RowStore."""
        self._end_open()
        self._copied.end_step()
        self._all_given = True
        self._local.discard()

    def state_names(self, table: int) -> Sequence[str]:
        """See RowStore."""
        return self._local.state_names(table)

    def _route(self, table: int, keys: Tensor) -> Route:
        return Route(self._world, self._tables[table].seed, keys)

    def _brought(self, table: int, keys: Tensor) -> Tensor:
        """What all ranks name of the keys whose rows this rank has."""
        return to_all(self._world, keys) if table in self._replicated else self._route(table, keys).keys

    def _agreed(self, change: Callable[[], None]) -> None:
        """Makes a change at the owners; if one cannot, all ranks raise."""
        error = None
        try:
            change()
        except EmbtablesError as raised:
            error = raised
        agree(self._world, error)

    def has_rows(self, table: int, keys: Tensor) -> Tensor:
        """See RowStore. Of keys that any rank owns."""
        if table in self._replicated:
            return self._local.has_rows(table, keys)
        route = self._route(table, keys)
        return route.answer(self._local.has_rows(table, route.keys).to(torch.uint8)).bool()

    def read(self, table: int, name: str, keys: Tensor) -> Tensor:
        """See RowStore. Of keys that any rank owns."""
        if table in self._replicated:
            return self._local.read(table, name, keys)
        route = self._route(table, keys)
        return route.answer(self._local.read(table, name, route.keys))

    def write(self, table: int, name: str, keys: Tensor, values: Tensor) -> None:
        """See RowStore. If several ranks write a key, the value of the last rank is used."""
        if table in self._replicated:
            keys, given = to_all(self._world, keys), to_all(self._world, values.float())
        else:
            route = self._route(table, keys)
            keys, given = route.keys, route.give(values.float())
        distinct, last = np.unique(keys.numpy()[::-1], return_index=True)
        places = torch.from_numpy(len(keys) - 1 - last)
        self._agreed(lambda: self._local.write(table, name, torch.from_numpy(distinct), given[places]))

    def make(self, table: int, keys: Tensor) -> None:
        """See RowStore."""
        self._agreed(lambda: self._refuse_open("rows are made between two steps"))
        keys = self._brought(table, keys)
        self._agreed(lambda: self._local.make(table, torch.unique(keys)))

    def delete(self, table: int, keys: Tensor) -> None:
        """See RowStore."""
        self._agreed(lambda: self._refuse_open("rows are deleted between two steps"))
        self._end_open()
        keys = self._brought(table, keys)
        self._agreed(lambda: self._local.delete(table, torch.unique(keys)))

    def _refuse_open(self, what: str) -> None:
        if any(asked.gradient is not None for asked in self._open):
            raise StateError(f"row gradients are waiting for their step: {what}")

    def num_steps(self, table: int) -> int:
        """See RowStore."""
        return self._local.num_steps(table)

    def key_state(self, table: int) -> KeyState | None:
        """See RowStore. Of the keys this rank owns."""
        return self._local.key_state(table)

    def capture(self, table: int, after: int | None, *, weights_only: bool = False) -> Capture:
        """See RowStore. Of the keys this rank owns."""
        whole = self._local.capture(table, after, weights_only=weights_only)
        is_part = table not in self._replicated
        return whole if is_part else OwnedCapture(whole, self._tables[table].seed, self._world)

    def apply(self, table: int, content: TableContent) -> None:
        """See RowStore. A content of the keys this rank owns, by all ranks."""
        self._refuse_open("contents are taken over between two steps")
        self._end_open()
        self._local.apply(table, joined(self._world, content) if table in self._replicated else content)

    def clear(self, table: int) -> None:
        """See RowStore."""
        self._refuse_open("tables are emptied between two steps")
        self._end_open()
        self._local.clear(table)

    def draw_cut(self) -> int:
        """See RowStore."""
        self._refuse_open("a cut lies between two steps")
        return self._local.draw_cut()

    def changes(self, table: int, after: int) -> Changes:
        """See RowStore. Of the keys this rank has: all of a replicated table."""
        return self._local.changes(table, after)

    def forget_changes(self, through: int) -> None:
        """See RowStore."""
        self._local.forget_changes(through)

    def figures(self, table: int) -> Mapping[str, int]:
        """See RowStore. Of what this rank owns; what all ranks count alike of copied rows is reported by rank 0."""
        found = dict(self._local.figures(table))
        if self._world.rank:
            own = 0 if table in self._replicated else found["refused_gradients"] - self._copied.refused_cold[table]
            found["refused_gradients"] = own
        return found

    def num_alive(self, table: int) -> tuple[int, int]:
        """See RowStore. Of what this rank owns."""
        return self._local.num_alive(table)

    def ages_and_counts(self, table: int) -> tuple[Words, Words] | None:
        """See RowStore. Of what this rank owns."""
        return self._local.ages_and_counts(table)

    def num_bytes(self, table: int) -> dict[str, int]:
        """See RowStore. Of what this rank owns."""
        return self._local.num_bytes(table)

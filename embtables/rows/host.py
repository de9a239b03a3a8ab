"""The native row store: all tables in C++ arenas, lookups and updates on torch's own threads.

A lookup is resolved once (key -> row number) and keeps its row numbers for the backward; `update` hands everything kept
since the last step to the core in one call. Fixed tables have a row a key; collisionless ones decide admission and
expiry in the core (embtables/native/collisionless.h).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from embtables.errors import DataError, StateError
from embtables.native import _core, isa
from embtables.rows.content import TableContent, Words
from embtables.rows.host_lookup import Context, Counts, Resolved, Rows
from embtables.rows.host_spec import spec_of
from embtables.rows.host_state import HostCapture, apply, delta, key_state, num_bytes
from embtables.rows.protocol import Ability, Capture, Changes, KeyState, Lookup, Segments, Taken
from embtables.rows.stored_table import StoredTable
from embtables.schema import CollisionlessTable

_MOST_OPEN = 64  # lookups whose backward may come
_POOLED_FLOATS = 1 << 17  # outputs from this size on are worth keeping


class HostRowStore:
    """Row store in native code.

    Raises:
        ConfigError: a fixed table has more than 2^32 - 1 rows.
    """

    abilities = frozenset(Ability)

    def __init__(self, tables: Sequence[StoredTable], slot_tables: Sequence[int]) -> None:
        self._tables = tuple(tables)
        self._slot_tables = tuple(slot_tables)
        self._store = _core.Store([spec_of(t) for t in tables], list(slot_tables), isa(), torch.get_num_threads())
        self._factor = 1.0
        self._pending: list[_core.Kept] = []
        self._looked_up: list[Context] = []  # whose gradients these are
        self._open: list[Context] = []
        self._cut = 0  # the last one drawn
        self._epoch = 0
        self._refused = [0] * len(tables)
        self._collisionless = [n for n, t in enumerate(tables) if isinstance(t.config, CollisionlessTable)]
        self._learning = [n for n in self._collisionless if tables[n].config.trainable]

    def _dim(self, slot: int) -> int:
        return self._tables[self._slot_tables[slot]].config.dim

    def _context(self, lookup: Lookup, *, keep: bool, counts: Counts = None) -> Context:
        """The lookup with its keys resolved to row numbers."""
        slots = np.array(lookup.slots, np.int32)
        keys, offsets = _numpy(lookup.keys), _numpy(lookup.offsets)
        rows = np.empty(len(keys), np.uint32)
        try:
            self._store.resolve(slots, keys, offsets, lookup.num_rows, keep, torch.get_num_threads(), rows, counts)
        except IndexError as error:
            raise DataError(str(error)) from None
        weights = None if lookup.weights is None else _numpy(lookup.weights.float())
        context = Context(slots, rows, offsets, weights, lookup.num_rows, self._epoch)
        if keep and self._collisionless:
            self._open.append(context)
            if len(self._open) > _MOST_OPEN:
                self._see(self._open.pop(0))
        return context

    def _see(self, context: Context) -> None:
        """Rows of collisionless tables that were seen count as changed, also where no gradient came to them."""
        for position, slot in enumerate(context.slots):
            table = self._slot_tables[slot]
            if table in self._collisionless:
                ends = context.offsets[[position * context.num_bags, (position + 1) * context.num_bags]]
                self._store.see(table, context.rows[slice(*ends)])

    def pooled(self, lookup: Lookup, *, keep: bool) -> tuple[Tensor, object]:
        """See RowStore."""
        c = self._context(lookup, keep=keep)
        out = self._output(lookup.num_rows, sum(map(self._dim, lookup.slots)))
        self._store.pooled(c.slots, c.rows, c.offsets, c.weights, c.num_bags, torch.get_num_threads(), out.numpy())
        return out, c if keep else None

    def _output(self, rows: int, width: int) -> Tensor:
        if rows * width < _POOLED_FLOATS:
            return torch.empty(rows, width)
        return torch.from_numpy(self._store.output(rows, width))

    def add_gradient(self, context: object, gradient: Tensor, *, of_weights: bool) -> Tensor | None:
        """See RowStore."""
        c = self._fresh(context)
        values = _numpy(gradient.detach().float())
        self._keep(c, (c.slots, c.rows, c.offsets, c.weights, c.num_bags, values))
        self._close(c)
        if not of_weights:
            return None
        out = torch.empty(len(c.rows))
        self._store.dots(c.slots, c.rows, c.offsets, c.num_bags, values, torch.get_num_threads(), out.numpy())
        return out

    def _keep(self, context: Context, gradients: _core.Kept) -> None:
        self._pending.append(gradients)
        if not self._looked_up or self._looked_up[-1] is not context:
            self._looked_up.append(context)

    def _close(self, context: Context) -> None:
        """All of a lookup's gradients are kept."""
        self._open = [o for o in self._open if o is not context]

    def gather(self, slots: Sequence[int], keys: Sequence[Tensor], *, keep: bool) -> tuple[list[Tensor], object]:
        """See RowStore. Each slot's keys are one bag of a lookup."""
        bags = torch.tensor([0, *np.cumsum([len(k) for k in keys])])
        c = self._context(Lookup(tuple(slots), torch.cat(list(keys)), bags, None, 1), keep=keep)
        found = [self._output(len(k), self._dim(s)) for s, k in zip(slots, keys, strict=True)]
        for slot, rows, (start, stop) in zip(slots, found, pairwise(c.offsets), strict=True):
            of, whole = np.array([slot], np.int32), np.array([0, stop - start])
            out = rows.view(-1).numpy()
            self._store.gather(of, c.rows[start:stop], whole, whole[:1], torch.get_num_threads(), out)
        return found, c if keep else None

    def add_row_gradients(self, context: object, gradients: Sequence[Tensor | None]) -> None:
        """See RowStore. Every key is a bag of its own."""
        c = self._fresh(context)
        for slot, gradient, (start, stop) in zip(c.slots, gradients, pairwise(c.offsets), strict=True):
            if gradient is not None:
                values, n = _numpy(gradient.detach().float()), stop - start
                one_each = np.arange(n + 1)
                self._keep(c, (np.array([slot], np.int32), c.rows[start:stop], one_each, None, int(n), values))
        if all(g is not None for g in gradients):
            self._close(c)

    def resolve(self, segments: Segments, keys: Tensor, counts: Tensor | None, *, keep: bool) -> object:
        """See PartStore."""
        of_slots = torch.from_numpy(segments.bounds[:: segments.ranks])
        lookup = Lookup(segments.slots, keys, of_slots, None, 1)
        often = None if counts is None else _numpy(counts)
        return Resolved(self._context(lookup, keep=keep, counts=often), segments, often)

    def rows_into(self, message: Tensor, context: object) -> None:
        """See PartStore."""
        assert isinstance(context, Resolved)
        c, of = self._fresh(context.lookup), context.segments
        self._store.gather(c.slots, c.rows, of.bounds, of.places, torch.get_num_threads(), message.numpy())

    def add_message(self, message: Tensor, context: object, used: npt.NDArray[np.bool_]) -> None:
        """See PartStore."""
        assert isinstance(context, Resolved)
        c, of = self._fresh(context.lookup), context.segments
        if used.any():
            self._keep(c, (c.slots, c.rows, of.bounds, np.where(used, of.places, -1), message.numpy(), context.counts))
        if used.all():
            self._close(c)

    def cold_keys(self, context: object) -> Tensor:
        """See PartStore."""
        assert isinstance(context, Resolved)
        c = self._fresh(context.lookup)
        found = c.rows == 0
        for slot, (start, stop) in zip(c.slots, pairwise(c.offsets), strict=True):
            found[start:stop] &= self._slot_tables[slot] in self._collisionless
        return torch.from_numpy(found)

    def add_cold_gradient(self, table: int, gradient: Tensor) -> None:
        """See PartStore."""
        slot, values = self._slot_tables.index(table), _numpy(gradient.detach().float()).reshape(1, -1)
        cold = Context(np.array([slot], np.int32), np.zeros(1, np.uint32), np.arange(2), None, 1, self._epoch)
        self._keep(cold, (cold.slots, cold.rows, cold.offsets, None, 1, values))

    def _fresh(self, context: object) -> Context:
        assert isinstance(context, Context)
        if context.epoch != self._epoch:
            raise StateError("a step or advance lies between this lookup and its backward: its rows may be gone")
        return context

    def gradient_norm(self) -> float:
        """See RowStore."""
        return float(self._store.gradient_norm(self._pending, torch.get_num_threads()))

    def set_learning_rate_factor(self, factor: float) -> None:
        """See RowStore."""
        self._factor = factor

    def update(self, gradient_scale: float) -> None:
        """See RowStore."""
        self._see_open()
        counts = self._store.update(self._pending, self._factor, gradient_scale, torch.get_num_threads())
        self._forget()
        for table, (_, refused) in enumerate(counts):
            self._refused[table] += refused
        if self._collisionless:
            self._epoch += 1
        for table in self._learning:
            self._store.end_step(table, torch.get_num_threads())

    def advance(self, table: int, now: int) -> None:
        """See RowStore."""
        self._refuse_pending("advance comes before the step's first lookup")
        self._see_open()
        self._store.advance(table, now)
        self._epoch += 1

    def discard(self) -> None:
        """See RowStore."""
        self._see_pending()
        self._forget()

    def _forget(self) -> None:
        self._pending.clear()
        self._looked_up.clear()

    def _see_open(self) -> None:
        for context in self._open:
            self._see(context)
        self._open.clear()

    def _see_pending(self) -> None:
        for context in self._looked_up:
            self._see(context)
        self._see_open()

    def draw_cut(self) -> int:
        """See RowStore."""
        self._refuse_pending("a cut lies between two steps")
        self._see_open()
        self._cut = int(self._store.draw_cut())
        return self._cut

    def changes(self, table: int, after: int) -> Changes:
        """See RowStore."""
        self._check_cut(table, after)
        self._see_pending()
        keys = self._store.list_rows(table, after, torch.get_num_threads())[0]
        return Changes(torch.from_numpy(np.sort(keys)), torch.from_numpy(self._tombstones(table, after)))

    def _check_cut(self, table: int, after: int) -> None:
        if not 1 <= after <= self._cut:
            raise StateError(f"cut {after} was not drawn", table=self._tables[table].config.name)

    def _tombstones(self, table: int, after: int) -> npt.NDArray[np.int64]:
        if table not in self._collisionless:
            return np.empty(0, np.int64)
        try:
            lost = self._store.tombstones(table, after)
        except ValueError as error:
            name = self._tables[table].config.name
            raise StateError(f"{error} any more; a snapshot of the table is needed", table=name) from None
        without_row: npt.NDArray[np.int64] = lost[self._find(table, torch.from_numpy(lost)) == 0]
        return without_row

    def forget_changes(self, through: int) -> None:
        """See RowStore."""
        self._store.forget(through)

    def state_names(self, table: int) -> Sequence[str]:
        """See RowStore."""
        return tuple(self._tables[table].parts)

    def _find(self, table: int, keys: Tensor) -> Rows:
        rows = np.empty(len(keys), np.uint32)
        try:
            self._store.find(table, _numpy(keys), torch.get_num_threads(), rows)
        except IndexError as error:
            raise DataError(str(error), table=self._tables[table].config.name) from None
        return rows

    def read(self, table: int, name: str, keys: Tensor) -> Tensor:
        """See RowStore."""
        return self._read(table, name, self._find(table, keys))

    def _read(self, table: int, name: str, rows: Rows) -> Tensor:
        stored = self._tables[table]
        part = stored.optimizer.native_parts[name]
        out = self._output(len(rows), stored.config.dim) if stored.parts[name] else torch.empty(len(rows))
        self._store.read(table, part, rows, torch.get_num_threads(), out.view(-1).numpy())
        return out

    def write(self, table: int, name: str, keys: Tensor, values: Tensor) -> None:
        """See RowStore."""
        rows = self._find(table, keys)
        if table in self._collisionless and (rows == 0).any():
            missing = int(keys[int(np.argmax(rows == 0))])
            raise StateError(f"key {missing} has no row", table=self._tables[table].config.name)
        part = self._tables[table].optimizer.native_parts[name]
        self._store.write(table, part, rows, torch.get_num_threads(), _numpy(values.float()).reshape(-1))

    def num_steps(self, table: int) -> int:
        """See RowStore."""
        return int(self._store.num_steps(table))

    def key_state(self, table: int) -> KeyState | None:
        """See RowStore."""
        if table not in self._collisionless and not self._tables[table].is_part:
            return None
        self._see_pending()
        return key_state(self._store, table, self._tables[table])

    def capture(self, table: int, after: int | None) -> Capture:
        """See RowStore."""
        self._see_pending()
        if after is None:
            return HostCapture(self._store, table, self._tables[table])
        self._check_cut(table, after)
        return Taken(delta(self._store, table, self._tables[table], after, self._tombstones(table, after)))

    def apply(self, table: int, content: TableContent) -> None:
        """See RowStore."""
        self._refuse_pending("contents are taken over between two steps")
        self._see_open()
        apply(self._store, table, self._tables[table], content)
        self._epoch += 1

    def make(self, table: int, keys: Tensor) -> None:
        """See RowStore."""
        self._refuse_pending("rows are made between two steps")
        if table in self._collisionless:
            self._store.make(table, _numpy(keys))

    def delete(self, table: int, keys: Tensor) -> None:
        """See RowStore."""
        self._refuse_pending("rows are deleted between two steps")
        self._see_open()
        if table in self._collisionless:
            self._store.remove(table, _numpy(keys))
            self._epoch += 1
        else:
            self._store.make_fresh(table, self._find(table, keys))

    def _refuse_pending(self, what: str) -> None:
        if self._pending:
            raise StateError(f"row gradients are waiting for their step: {what}")

    def clear(self, table: int) -> None:
        """See RowStore."""
        self._refuse_pending("tables are emptied between two steps")
        self._see_open()
        if table in self._collisionless:
            self._store.clear(table)
            self._epoch += 1

    def num_bytes(self, table: int) -> dict[str, int]:
        """See RowStore."""
        return num_bytes(self._store, table, self._tables[table])

    def num_held(self, table: int) -> tuple[int, int]:
        """See PartStore."""
        figures = self._store.stats(table)
        return figures["rows"], figures["waiting"]

    def age_bins(self, table: int, waiting: bool) -> Tensor:
        """See PartStore."""
        self._refuse_pending("ages are those between two steps")
        self._see_open()
        return torch.from_numpy(self._store.age_bins(table, waiting, torch.get_num_threads()))

    def of_age(self, table: int, waiting: bool, chosen: int) -> tuple[Tensor, Tensor]:
        """See PartStore."""
        seen, mixes = self._store.of_age(table, waiting, chosen, torch.get_num_threads())
        return torch.from_numpy(seen), torch.from_numpy(mixes)

    def evict(self, table: int, waiting: bool, chosen: int, seen: int, mix: int) -> None:
        """See PartStore."""
        self._refuse_pending("what is too much goes between two steps")
        self._see_open()
        self._store.evict(table, waiting, chosen, seen, mix, torch.get_num_threads())
        self._epoch += 1

    def ages_and_counts(self, table: int) -> tuple[Words, Words] | None:
        """See RowStore."""
        if table not in self._collisionless:
            return None
        self._see_pending()
        return self._store.ages_and_counts(table)

    def figures(self, table: int) -> Mapping[str, int]:
        """See RowStore."""
        found = dict(self._store.stats(table))
        found["refused_gradients"] = self._refused[table]
        return found


def _numpy(tensor: Tensor) -> npt.NDArray[Any]:
    return tensor.detach().contiguous().numpy()

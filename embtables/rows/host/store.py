"""The native row store: all tables in C++ arenas, lookups and updates on torch's own threads.

A lookup is resolved once (key -> row number) and keeps its row numbers for the backward; `update` hands everything kept
since the last step to the core in one call. Fixed tables have a row for each key; collisionless ones decide admission
and expiry in the core (embtables/native/store/collisionless.h).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from embtables.errors import DataError, StateError
from embtables.native import _core, isa
from embtables.rows.content import TableContent, Words, scaled
from embtables.rows.host.decay import LazyDecay
from embtables.rows.host.lookup import (
    Counts,
    HostOwnedLookup,
    HostOwnedRows,
    HostPooledLookup,
    HostRowsLookup,
    Resolved,
    RowNumbers,
    StepLookups,
    as_numpy,
)
from embtables.rows.host.spec import spec_of
from embtables.rows.host.state import HostCapture, apply, delta, key_state, num_bytes
from embtables.rows.optimizers import WEIGHT
from embtables.rows.protocol import (
    Ability,
    Capture,
    Changes,
    CopiedCapture,
    KeyState,
    Lookup,
    OwnedLookup,
    OwnedRows,
    PooledLookup,
    RowsLookup,
    Segments,
)
from embtables.rows.stored_table import StoredTable
from embtables.schema import CollisionlessTable

_POOLED_FLOATS = 1 << 17  # outputs from this size on are worth keeping


class HostRowStore:
    """Row store in native code.

    Raises:
        ConfigError: a fixed table has more than 2^32 - 1 rows.
    """

    abilities = frozenset(Ability)

    def __init__(self, tables: Sequence[StoredTable], feature_tables: Sequence[int]) -> None:
        self._tables = tuple(tables)
        self._feature_tables = tuple(feature_tables)
        numbers = {table.config.name: number for number, table in enumerate(tables)}
        leaders = [None if table.keys_of is None else numbers[table.keys_of] for table in tables]
        specs = [spec_of(table, leader) for table, leader in zip(tables, leaders, strict=True)]
        self._store = _core.Store(specs, list(feature_tables), isa(), torch.get_num_threads())
        self._factor = 1.0
        self._cut = 0  # the last one drawn
        self._refused = [0] * len(tables)
        self._collisionless = [n for n, t in enumerate(tables) if isinstance(t.config, CollisionlessTable)]
        self._learning = [n for n in self._collisionless if tables[n].config.trainable and leaders[n] is None]
        self._decay = LazyDecay(self._store, tables)
        self._leader_of = [number if leader is None else leader for number, leader in enumerate(leaders)]
        self._step = StepLookups(self._see, marks=bool(self._collisionless))

    def _dim(self, feature: int) -> int:
        return self._tables[self._feature_tables[feature]].config.dim

    def _resolve(self, lookup: Lookup, *, train: bool, counts: Counts = None) -> Resolved:
        """The lookup with its keys resolved to row numbers."""
        features, all_features = (np.array(of, np.int32) for of in (lookup.features, lookup.features + lookup.beside))
        self._refuse_other_keys(lookup)
        keys, offsets = as_numpy(lookup.keys), as_numpy(lookup.offsets)
        rows = np.empty(len(keys), np.uint32)
        try:
            self._store.resolve(features, keys, offsets, lookup.num_rows, train, torch.get_num_threads(), rows, counts)
        except IndexError as error:
            raise DataError(str(error)) from None
        weights = None if lookup.weights is None else as_numpy(lookup.weights.float())
        found = Resolved(all_features, rows, offsets, weights, lookup.num_rows, self._step.generation)
        if train:
            self._step.begin(found)
        return found

    def _refuse_other_keys(self, lookup: Lookup) -> None:
        """Raises ValueError if row numbers of a feature are not those of the one beside it."""
        own, beside = (
            [self._leader_of[self._feature_tables[f]] for f in of] for of in (lookup.features, lookup.beside)
        )
        if beside and own != beside:
            raise ValueError("features beside others must read tables that share their keys")

    def _see(self, lookup: Resolved) -> None:
        for position, feature in enumerate(lookup.features):
            table = self._feature_tables[feature]
            if table in self._collisionless:
                self._store.see(table, lookup.rows[lookup.span(position)])

    def pooled(self, lookup: Lookup) -> Tensor:
        """See RowReader."""
        return self._sums(self._resolve(lookup, train=False))

    def train_pooled(self, lookup: Lookup) -> tuple[Tensor, PooledLookup]:
        """See RowTrainer."""
        found = self._resolve(lookup, train=True)
        dims = [self._dim(feature) for feature in found.features]
        return self._sums(found), HostPooledLookup(self._store, self._step, found, dims)

    def _sums(self, c: Resolved) -> Tensor:
        out = self._output(c.num_bags, sum(map(self._dim, c.features)))
        self._store.pooled(c.features, c.rows, c.offsets, c.weights, c.num_bags, torch.get_num_threads(), out.numpy())
        return out

    def _output(self, rows: int, width: int) -> Tensor:
        if rows * width < _POOLED_FLOATS:
            return torch.empty(rows, width)
        return torch.from_numpy(self._store.output(rows, width))

    def gather(self, features: Sequence[int], keys: Sequence[Tensor]) -> list[Tensor]:
        """See RowReader."""
        return self._rows_of(self._resolve(_in_bags(features, keys), train=False))

    def train_rows(self, features: Sequence[int], keys: Sequence[Tensor]) -> tuple[list[Tensor], RowsLookup]:
        """See RowTrainer."""
        found = self._resolve(_in_bags(features, keys), train=True)
        return self._rows_of(found), HostRowsLookup(self._step, found)

    def _rows_of(self, c: Resolved) -> list[Tensor]:
        """The rows of each feature's keys, which are one bag."""
        found = []
        for feature, (start, stop) in zip(c.features, pairwise(c.offsets), strict=True):
            rows = self._output(stop - start, self._dim(feature))
            of, whole = np.array([feature], np.int32), np.array([0, stop - start])
            out = rows.view(-1).numpy()
            self._store.gather(of, c.rows[start:stop], whole, whole[:1], torch.get_num_threads(), out)
            found.append(rows)
        return found

    def owned(self, segments: Segments, keys: Tensor) -> OwnedRows:
        """See PartStore."""
        found = self._resolve(_of_segments(segments, keys), train=False)
        return HostOwnedRows(self._store, self._step, found, segments)

    def train_owned(self, segments: Segments, keys: Tensor, counts: Tensor | None) -> OwnedLookup:
        """See PartStore."""
        often = None if counts is None else as_numpy(counts)
        found = self._resolve(_of_segments(segments, keys), train=True, counts=often)
        grows = [self._feature_tables[feature] in self._collisionless for feature in segments.features]
        return HostOwnedLookup(self._store, self._step, found, segments, often, grows)

    def add_cold_gradient(self, table: int, gradient: Tensor) -> None:
        """See PartStore."""
        feature, values = self._feature_tables.index(table), as_numpy(gradient.detach().float()).reshape(1, -1)
        of, row, bags = np.array([feature], np.int32), np.zeros(1, np.uint32), np.arange(2)
        cold = Resolved(of, row, bags, None, 1, self._step.generation)
        self._step.keep(cold, (of, row, bags, None, 1, values))

    def gradient_norm(self) -> float:
        """See RowStore."""
        return float(self._store.gradient_norm(self._step.pending, torch.get_num_threads()))

    def set_learning_rate_factor(self, factor: float) -> None:
        """See RowStore."""
        self._factor = factor

    def update(self, gradient_scale: float) -> None:
        """See RowStore."""
        self._step.see_open()
        self._decay.step(self._factor)
        counts = self._store.update(self._step.pending, self._factor, gradient_scale, torch.get_num_threads())
        self._step.forget()
        for table, (_, refused) in enumerate(counts):
            self._refused[table] += refused
        if self._collisionless:
            self._step.generation += 1
        for table in self._learning:
            self._store.end_step(table, torch.get_num_threads())

    def advance(self, table: int, now: int) -> None:
        """See RowStore."""
        self._step.refuse_pending("advance comes before the step's first lookup")
        self._step.see_open()
        self._store.advance(table, now)
        self._step.generation += 1

    def discard(self) -> None:
        """See RowStore."""
        self._step.see_all()
        self._step.forget()

    def draw_cut(self) -> int:
        """See RowStore."""
        self._step.refuse_pending("a cut lies between two steps")
        self._step.see_open()
        self._cut = int(self._store.draw_cut())
        self._decay.note_cut(self._cut)
        return self._cut

    def changes(self, table: int, after: int) -> Changes:
        """See RowStore."""
        self._check_cut(table, after)
        self._step.see_all()
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
        self._decay.forget(through)

    def state_names(self, table: int) -> Sequence[str]:
        """See RowStore."""
        return tuple(self._tables[table].columns)

    def _find(self, table: int, keys: Tensor) -> RowNumbers:
        rows = np.empty(len(keys), np.uint32)
        try:
            self._store.find(table, as_numpy(keys), torch.get_num_threads(), rows)
        except IndexError as error:
            raise DataError(str(error), table=self._tables[table].config.name) from None
        return rows

    def has_rows(self, table: int, keys: Tensor) -> Tensor:
        """See RowStore."""
        rows = self._find(table, keys)
        return torch.from_numpy(rows != 0 if table in self._collisionless else np.ones(len(rows), np.bool_))

    def read(self, table: int, name: str, keys: Tensor) -> Tensor:
        """See RowStore."""
        return self._read(table, name, self._find(table, keys))

    def _read(self, table: int, name: str, rows: RowNumbers) -> Tensor:
        stored = self._tables[table]
        number = stored.optimizer.native_columns[name]
        out = self._output(len(rows), stored.config.dim) if stored.columns[name] else torch.empty(len(rows))
        self._store.read(table, number, rows, torch.get_num_threads(), out.view(-1).numpy())
        return torch.from_numpy(scaled(out.numpy(), self._store.scale(table))) if name == WEIGHT else out

    def write(self, table: int, name: str, keys: Tensor, values: Tensor) -> None:
        """See RowStore."""
        if name == WEIGHT:
            self._decay.fold(table)  # what is written is read again bit for bit; all ranks do the same
        rows = self._find(table, keys)
        if table in self._collisionless and (rows == 0).any():
            missing = int(keys[int(np.argmax(rows == 0))])
            raise StateError(f"key {missing} has no row", table=self._tables[table].config.name)
        number = self._tables[table].optimizer.native_columns[name]
        self._store.write(table, number, rows, torch.get_num_threads(), as_numpy(values.float()).reshape(-1))

    def num_steps(self, table: int) -> int:
        """See RowStore."""
        return int(self._store.num_steps(table))

    def key_state(self, table: int) -> KeyState | None:
        """See RowStore."""
        if table not in self._collisionless and not self._tables[table].is_part:
            return None
        self._step.see_all()
        return key_state(self._store, table, self._tables[table])

    def capture(self, table: int, after: int | None, *, weights_only: bool = False) -> Capture:
        """See RowStore."""
        self._step.see_all()
        if after is None:
            return HostCapture(self._store, table, self._tables[table], weights_only=weights_only)
        self._check_cut(table, after)
        gone = self._tombstones(table, after)
        changed = delta(self._store, table, self._tables[table], after, gone, weights_only=weights_only)
        changed.decay = self._decay.since(table, after)
        return CopiedCapture(changed)

    def apply(self, table: int, content: TableContent) -> None:
        """See RowStore."""
        self._step.refuse_pending("contents are taken over between two steps")
        self._step.see_open()
        apply(self._store, table, self._tables[table], content)
        self._step.generation += 1

    def make(self, table: int, keys: Tensor) -> None:
        """See RowStore."""
        self._step.refuse_pending("rows are made between two steps")
        if table in self._collisionless:
            self._store.make(table, as_numpy(keys))

    def delete(self, table: int, keys: Tensor) -> None:
        """See RowStore."""
        self._step.refuse_pending("rows are deleted between two steps")
        self._step.see_open()
        if table in self._collisionless:
            self._store.remove(table, as_numpy(keys))
            self._step.generation += 1
        else:
            self._store.make_fresh(table, self._find(table, keys))

    def clear(self, table: int) -> None:
        """See RowStore."""
        self._step.refuse_pending("tables are emptied between two steps")
        self._step.see_open()
        if table in self._collisionless:
            self._store.clear(table)
            self._step.generation += 1

    def num_bytes(self, table: int) -> dict[str, int]:
        """See RowStore."""
        return num_bytes(self._store, table, self._tables[table])

    def num_held(self, table: int) -> tuple[int, int]:
        """See PartStore."""
        figures = self._store.stats(table)
        return figures["rows"], figures["waiting"]

    def age_bins(self, table: int, waiting: bool) -> Tensor:
        """See PartStore."""
        self._step.refuse_pending("ages are counted between two steps")
        self._step.see_open()
        return torch.from_numpy(self._store.age_bins(table, waiting, torch.get_num_threads()))

    def of_age(self, table: int, waiting: bool, chosen: int) -> tuple[Tensor, Tensor]:
        """See PartStore."""
        seen, mixes = self._store.of_age(table, waiting, chosen, torch.get_num_threads())
        return torch.from_numpy(seen), torch.from_numpy(mixes)

    def evict(self, table: int, waiting: bool, chosen: int, seen: int, mix: int) -> None:
        """See PartStore."""
        self._step.refuse_pending("rows are evicted between two steps")
        self._step.see_open()
        self._store.evict(table, waiting, chosen, seen, mix, torch.get_num_threads())
        self._step.generation += 1

    def num_alive(self, table: int) -> tuple[int, int]:
        """See RowStore."""
        self._step.see_all()
        threads = torch.get_num_threads()
        return len(self._store.list_rows(table, 0, threads)[0]), len(self._store.list_waiting(table, threads)[0])

    def ages_and_counts(self, table: int) -> tuple[Words, Words] | None:
        """See RowStore."""
        if table not in self._collisionless:
            return None
        self._step.see_all()
        return self._store.ages_and_counts(table)

    def figures(self, table: int) -> Mapping[str, int]:
        """See RowStore."""
        found = dict(self._store.stats(table))
        found["refused_gradients"] = self._refused[table]
        return found


def _in_bags(features: Sequence[int], keys: Sequence[Tensor]) -> Lookup:
    """Each feature's keys (n,) as one bag of a lookup."""
    bags = torch.tensor([0, *np.cumsum([len(k) for k in keys])])
    return Lookup(tuple(features), torch.cat(list(keys)), bags, None, 1)


def _of_segments(segments: Segments, keys: Tensor) -> Lookup:
    """All keys of a feature as one bag of a lookup."""
    return Lookup(segments.features, keys, torch.from_numpy(segments.bounds[:: segments.ranks]), None, 1)

"""The reference row store: plain torch on the CPU, obviously right; the oracle of every other store.

Fixed tables of one dimension and one optimizer lie in one arena, one after the other, so that a step sorts and sums
once per arena instead of once per table. A collisionless table has an arena of its own, whose row 0 is the cold row;
`KeyPolicy` knows which key has which row.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from embtables.errors import StateError
from embtables.rows.content import TableContent
from embtables.rows.duplicates import SparseGradient, bag_numbers, concatenate, sum_duplicates
from embtables.rows.initial import initial_rows
from embtables.rows.optimizers import dense_factor
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
from embtables.rows.reference.arena import Arena, Place, arenas_of
from embtables.rows.reference.key_policy import KeyPolicy
from embtables.rows.reference.rules import apply_rule
from embtables.rows.reference.state import age_bins, apply, key_state, of_age, take
from embtables.rows.stored_table import StoredTable

_Bags = tuple[Arena, Tensor, Tensor, Tensor | None]  # the arena, its rows (n,), offsets, weights


@dataclass(frozen=True, slots=True, eq=False)
class _PooledLookup:
    """See PooledLookup."""

    num_rows: int
    bags: list[_Bags]

    def add_gradient(self, gradient: Tensor, *, of_weights: bool) -> Tensor | None:
        """See PooledLookup."""
        b = self.num_rows
        column = 0
        weight_gradients: list[Tensor] = []
        for arena, rows, offsets, weights in self.bags:
            dim = arena.weight.shape[1]
            features = (offsets.shape[0] - 1) // b if b else 0
            part = gradient[:, column : column + features * dim].float()
            column += features * dim
            by_bag = part.reshape(b, features, dim).transpose(0, 1).reshape(features * b, dim)
            bag_of_key = bag_numbers(offsets)
            arena.pending.append(SparseGradient(rows, bag_of_key, by_bag, weights))
            if of_weights:
                weight_gradients.append((arena.weight[rows] * by_bag[bag_of_key]).sum(dim=1))
        return torch.cat(weight_gradients) if of_weights else None


@dataclass(frozen=True, slots=True, eq=False)
class _RowsLookup:
    """See RowsLookup."""

    rows: list[tuple[Arena, Tensor]]  # of each feature

    def add_gradients(self, gradients: Sequence[Tensor | None]) -> None:
        """See RowsLookup."""
        for (arena, rows), gradient in zip(self.rows, gradients, strict=True):
            if gradient is not None:
                arena.keep(rows, torch.arange(len(rows)), gradient)


@dataclass(frozen=True, slots=True, eq=False)
class _OwnedLookup:
    """See OwnedLookup.

    Attributes:
        rows: (N,) of the keys, in their arenas.
        arenas: of each feature, and the table's policy where it is collisionless.
    """

    segments: Segments
    rows: Tensor
    arenas: Mapping[int, tuple[Arena, KeyPolicy | None]]

    def rows_into(self, message: Tensor) -> None:
        """See OwnedRows."""
        for feature, rows, part in self._segments_of(message):
            part.copy_(self.arenas[feature][0].weight[rows])

    def _segments_of(self, message: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Of each segment its feature, rows (n,) of the arena, and part (n, D) of the message."""
        for feature, keys, place in self.segments.each():
            dim = self.arenas[feature][0].weight.shape[1]
            of = self.rows[keys]
            yield feature, of, message[place : place + len(of) * dim].view(len(of), dim)

    def add_message(self, message: Tensor, used: npt.NDArray[np.bool_]) -> None:
        """See OwnedLookup."""
        for (feature, rows, part), has_gradient in zip(self._segments_of(message), used.tolist(), strict=True):
            if not has_gradient:
                continue
            arena, policy = self.arenas[feature]
            learns = torch.arange(len(rows))
            if policy is not None and policy.is_part:
                learns = learns[rows != 0]  # the cold row's gradients are summed over all parts first
            arena.keep(rows[learns], learns, part)

    def cold_keys(self) -> Tensor:
        """See OwnedLookup."""
        grows = torch.tensor([self.arenas[feature][1] is not None for feature in self.segments.features])
        found: Tensor = (self.rows == 0) & grows.repeat_interleave(torch.tensor(self.segments.sizes()))
        return found


class ReferenceRowStore:
    """Row store in plain torch."""

    abilities = frozenset(Ability) - {Ability.BESIDE}

    def __init__(self, tables: Sequence[StoredTable], feature_tables: Sequence[int]) -> None:
        self._tables = tuple(tables)
        self._feature_tables = tuple(feature_tables)
        self._factor = 1.0
        self._cut = 1
        self._changed: dict[int, dict[int, int]] = {}  # of fixed tables: key -> the cut in which its row last changed
        self._arenas, self._places = arenas_of(self._tables)
        self._scales = [1.0] * len(self._tables)  # of contents, given and taken; rows here are the weights themselves

    def _place(self, feature: int) -> Place:
        return self._places[self._feature_tables[feature]]

    def _arena(self, feature: int) -> Arena:
        return self._arenas[self._place(feature).arena]

    def pooled(self, lookup: Lookup) -> Tensor:
        """See RowReader."""
        return self._pooled(lookup)[0]

    def train_pooled(self, lookup: Lookup) -> tuple[Tensor, PooledLookup]:
        """See RowTrainer."""
        self._observe([(feature, lookup.keys[start:stop]) for feature, start, stop in _spans(lookup)])
        result, bags = self._pooled(lookup)
        return result, _PooledLookup(lookup.num_rows, bags)

    def _pooled(self, lookup: Lookup) -> tuple[Tensor, list[_Bags]]:
        """One embedding_bag for each run of neighbouring features in one arena."""
        b = lookup.num_rows
        bags: list[_Bags] = []
        parts: list[Tensor] = []
        for number, first, last in self._runs(lookup.features):
            offsets = lookup.offsets[first * b : last * b + 1]
            start, stop = int(offsets[0]), int(offsets[-1])
            spans = _spans(lookup)[first:last]
            rows = torch.cat([self._place(f).rows_of(lookup.keys[i:j]) for f, i, j in spans])
            weights = None if lookup.weights is None else lookup.weights[start:stop]
            bag_offsets = offsets - start
            arena = self._arenas[number]
            out = functional.embedding_bag(
                rows, arena.weight, bag_offsets, mode="sum", per_sample_weights=weights, include_last_offset=True
            )
            # (f * B, D) -> (B, f * D)
            features, dim = last - first, arena.weight.shape[1]
            parts.append(out.view(features, b, dim).transpose(0, 1).reshape(b, features * dim))
            bags.append((arena, rows, bag_offsets, weights))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1), bags

    def _runs(self, features: Sequence[int]) -> list[tuple[int, int, int]]:
        """(arena, first, last) of runs of neighbouring features in one arena."""
        runs: list[tuple[int, int, int]] = []
        for position, feature in enumerate(features):
            arena = self._place(feature).arena
            if runs and runs[-1][0] == arena:
                runs[-1] = (arena, runs[-1][1], position + 1)
            else:
                runs.append((arena, position, position + 1))
        return runs

    def _observe(self, parts: Sequence[tuple[int, Tensor]]) -> None:
        """Counts the keys of a lookup of training, (feature, keys) in order; makes fresh rows."""
        keys_of: dict[int, list[int]] = {}
        for feature, keys in parts:
            if self._place(feature).policy is not None:
                keys_of.setdefault(self._feature_tables[feature], []).extend(keys.tolist())
        for table, listed in keys_of.items():
            policy = self._places[table].policy
            assert policy is not None
            fresh = policy.observe(listed)
            if fresh:
                self._reset(table, [row for row, _ in fresh], np.array([key for _, key in fresh], np.int64))

    def _reset(self, table: int, rows: list[int], keys: npt.NDArray[np.int64]) -> None:
        arena, stored = self._arenas[self._places[table].arena], self._tables[table]
        arena.grow(max(rows) + 1)
        fresh = initial_rows(stored.config.initializer, stored.seed, keys, stored.config.dim)
        arena.weight[rows] = torch.from_numpy(fresh)
        for values in arena.state.values():
            values[rows] = 0.0

    def gather(self, features: Sequence[int], keys: Sequence[Tensor]) -> list[Tensor]:
        """See RowReader."""
        return [arena.weight[rows] for arena, rows in self._rows_of(features, keys)]

    def train_rows(self, features: Sequence[int], keys: Sequence[Tensor]) -> tuple[list[Tensor], RowsLookup]:
        """See RowTrainer."""
        self._observe(list(zip(features, keys, strict=True)))
        found = self._rows_of(features, keys)
        return [arena.weight[rows] for arena, rows in found], _RowsLookup(found)

    def _rows_of(self, features: Sequence[int], keys: Sequence[Tensor]) -> list[tuple[Arena, Tensor]]:
        """Each feature's arena, and where its keys (n,) lie in it."""
        return [(self._arena(f), self._place(f).rows_of(k)) for f, k in zip(features, keys, strict=True)]

    def owned(self, segments: Segments, keys: Tensor) -> OwnedRows:
        """See PartStore."""
        return self._owned(segments, keys)

    def train_owned(self, segments: Segments, keys: Tensor, counts: Tensor | None) -> OwnedLookup:
        """See PartStore."""
        often = torch.ones_like(keys) if counts is None else counts
        parts = zip(segments.features, *(torch.split(t, segments.sizes()) for t in (keys, often)), strict=True)
        self._observe([(feature, k.repeat_interleave(c)) for feature, k, c in parts])
        return self._owned(segments, keys)

    def _owned(self, segments: Segments, keys: Tensor) -> _OwnedLookup:
        found = self._rows_of(segments.features, torch.split(keys, segments.sizes()))
        arenas = {f: (self._arena(f), self._place(f).policy) for f in segments.features}
        return _OwnedLookup(segments, torch.cat([rows for _, rows in found]), arenas)

    def add_cold_gradient(self, table: int, gradient: Tensor) -> None:
        """See PartStore."""
        cold = torch.zeros(1, dtype=torch.int64)
        sparse = SparseGradient(cold, cold, gradient.float()[None], None)
        self._arenas[self._places[table].arena].pending.append(sparse)

    def gradient_norm(self) -> float:
        """See RowStore."""
        squares = 0.0
        for arena in self._arenas:
            if arena.pending:
                rows, gradient = sum_duplicates(concatenate(arena.pending))
                squares += float(gradient[rows >= arena.first_row].double().square().sum())
        return math.sqrt(squares)

    def set_learning_rate_factor(self, factor: float) -> None:
        """See RowStore."""
        self._factor = factor

    def update(self, gradient_scale: float) -> None:
        """See RowStore."""
        self._decay_all()
        for arena in self._arenas:
            if not arena.pending:
                continue
            rows, gradient = sum_duplicates(concatenate(arena.pending))
            arena.pending.clear()
            arena.steps += 1
            if gradient_scale != 1.0:
                gradient = gradient * gradient_scale
            finite = gradient.isfinite().all(dim=1)
            learns = rows >= arena.first_row
            arena.refused += int((learns & ~finite).sum())
            self._mark(arena, rows)
            rows, gradient = rows[learns & finite], gradient[learns & finite]
            rate = arena.optimizer.learning_rate * self._factor
            apply_rule(
                arena.optimizer, arena.weight, arena.state, rows, gradient, learning_rate=rate, steps=arena.steps
            )
        for number, place in self._places.items():
            if place.policy is not None and self._tables[number].config.trainable:
                place.policy.end_step()

    def _decay_all(self) -> None:
        """Every row of tables whose weight decay is dense; all of them have changed then."""
        for table, place in self._places.items():
            config, arena = self._tables[table].config, self._arenas[place.arena]
            if not config.trainable or config.optimizer.dense_decay == 0.0:
                continue
            factor = dense_factor(config.optimizer, self._factor)
            if place.policy is None:
                arena.weight[place.base : place.base + place.rows] *= factor
                self._changed.setdefault(table, {}).update(dict.fromkeys(place.own_keys().tolist(), self._cut))
            else:
                arena.weight *= factor
                keys = [key for key in place.policy.entries if place.policy.row(key)]
                place.policy.changed.update(dict.fromkeys(keys, self._cut))

    def discard(self) -> None:
        """See RowStore."""
        for arena in self._arenas:
            arena.pending.clear()

    def _mark(self, arena: Arena, rows: Tensor) -> None:
        for table, place in self._places.items():
            if self._arenas[place.arena] is arena and place.policy is None:
                own = place.own_keys()[rows[(rows >= place.base) & (rows < place.base + place.rows)] - place.base]
                self._changed.setdefault(table, {}).update(dict.fromkeys(own.tolist(), self._cut))

    def draw_cut(self) -> int:
        """See RowStore."""
        self._refuse_pending("a cut lies between two steps")
        self._cut += 1
        for place in self._places.values():
            if place.policy is not None:
                place.policy.cut = self._cut
        return self._cut - 1

    def changes(self, table: int, after: int) -> Changes:
        """See RowStore. Tombstones are kept for ever."""
        if not 1 <= after < self._cut:
            raise StateError(f"cut {after} was not drawn", table=self._tables[table].config.name)
        policy = self._places[table].policy
        lost: list[int] = []
        if policy is None:
            keys = sorted(key for key, cut in self._changed.get(table, {}).items() if cut > after)
        else:
            keys, lost = policy.changes(after)
        return Changes(torch.tensor(keys, dtype=torch.int64), torch.tensor(lost, dtype=torch.int64))

    def forget_changes(self, through: int) -> None:
        """See RowStore."""

    def state_names(self, table: int) -> Sequence[str]:
        """See RowStore."""
        return tuple(self._columns(table))

    def _columns(self, table: int) -> dict[str, Tensor]:
        return self._arenas[self._places[table].arena].columns()

    def has_rows(self, table: int, keys: Tensor) -> Tensor:
        """See RowStore."""
        place = self._places[table]
        rows = place.rows_of(keys)
        return torch.ones(len(keys), dtype=torch.bool) if place.policy is None else rows != 0

    def read(self, table: int, name: str, keys: Tensor) -> Tensor:
        """See RowStore."""
        return self._columns(table)[name][self._places[table].rows_of(keys)]

    def write(self, table: int, name: str, keys: Tensor, values: Tensor) -> None:
        """See RowStore."""
        place = self._places[table]
        rows, policy = place.rows_of(keys), place.policy
        if policy is not None and (rows == 0).any():
            missing = int(keys[int((rows == 0).int().argmax())])
            raise StateError(f"key {missing} has no row", table=self._tables[table].config.name)
        self._columns(table)[name][rows] = values
        changed = self._changed.setdefault(table, {}) if policy is None else policy.changed
        changed.update(dict.fromkeys(keys.tolist(), self._cut))

    def num_steps(self, table: int) -> int:
        """See RowStore."""
        return self._arenas[self._places[table].arena].steps

    def advance(self, table: int, now: int) -> None:
        """See RowStore."""
        self._refuse_pending("advance comes before the step's first lookup")
        policy = self._places[table].policy
        if policy is not None:
            policy.now = max(policy.now, now)

    def key_state(self, table: int) -> KeyState | None:
        """See RowStore."""
        return key_state(self._places[table])

    def capture(self, table: int, after: int | None, *, weights_only: bool = False) -> Capture:
        """See RowStore. Counts of gradients are not kept."""
        changes = None if after is None else self.changes(table, after)
        place = self._places[table]
        content = take(place, self._arenas[place.arena], self._tables[table].seed, changes)
        return CopiedCapture(content.at_scale(self._scales[table]))

    def apply(self, table: int, content: TableContent) -> None:
        """See RowStore."""
        place, decayed = self._places[table], content.scale / self._scales[table]
        arena = self._arenas[place.arena]
        if decayed != 1.0:  # what a delta says of rows that are not in it
            arena.weight[slice(None) if place.policy else slice(place.base, place.base + place.rows)] *= decayed
            self._scales[table] = content.scale
        apply(place, arena, content.unscaled())

    def make(self, table: int, keys: Tensor) -> None:
        """See RowStore."""
        self._refuse_pending("rows are made between two steps")
        policy = self._places[table].policy
        if policy is None:
            return
        missing = [key for key in dict.fromkeys(keys.tolist()) if not policy.row(key)]
        for key in missing:
            policy.remove(key)  # a row past its ttl
        if missing:
            self._reset(table, policy.place(missing, [policy.now] * len(missing)), np.array(missing, np.int64))
        for key in keys.tolist():
            policy.entries[key].seen = policy.now
            policy.changed[key] = self._cut

    def delete(self, table: int, keys: Tensor) -> None:
        """See RowStore."""
        self._refuse_pending("rows are deleted between two steps")
        policy, distinct = self._places[table].policy, list(dict.fromkeys(keys.tolist()))
        if policy is not None:
            for key in distinct:
                policy.remove(key)
        elif distinct:
            rows = self._places[table].rows_of(torch.tensor(distinct))
            self._reset(table, rows.tolist(), np.array(distinct, np.int64))
            self._changed.setdefault(table, {}).update(dict.fromkeys(distinct, self._cut))

    def _refuse_pending(self, what: str) -> None:
        if any(arena.pending for arena in self._arenas):
            raise StateError(f"row gradients are waiting for their step: {what}")

    def num_held(self, table: int) -> tuple[int, int]:
        """See PartStore."""
        policy = self._policy(table)
        return len(policy.held(False)), len(policy.held(True))

    def age_bins(self, table: int, waiting: bool) -> Tensor:
        """See PartStore. What is past its ttl is never alive again: nothing has to be dropped."""
        return age_bins(self._policy(table), waiting)

    def of_age(self, table: int, waiting: bool, chosen: int) -> tuple[Tensor, Tensor]:
        """See PartStore."""
        return of_age(self._policy(table), waiting, chosen)

    def evict(self, table: int, waiting: bool, chosen: int, seen: int, mix: int) -> None:
        """See PartStore."""
        self._refuse_pending("rows are evicted between two steps")
        self._policy(table).evict(waiting, chosen, (seen, mix % 2**64))

    def _policy(self, table: int) -> KeyPolicy:
        policy = self._places[table].policy
        assert policy is not None
        return policy

    def clear(self, table: int) -> None:
        """See RowStore."""
        place = self._places[table]
        if place.policy is not None:
            for key in list(place.policy.entries):
                place.policy.remove(key)
            self._scales[table] = 1.0

    def figures(self, table: int) -> Mapping[str, int]:
        """See RowStore. Only what the contract compares."""
        arena, policy = self._arenas[self._places[table].arena], self._places[table].policy
        found = {"refused_gradients": arena.refused}
        return found if policy is None else found | {"now": policy.now, "steps": policy.steps, "rows": policy.num_rows}

    def num_alive(self, table: int) -> tuple[int, int]:
        """See RowStore."""
        state = self.key_state(table)
        assert state is not None, "of collisionless tables only"
        return len(state.keys), len(state.waiting)

    def ages_and_counts(self, table: int) -> None:
        """See RowStore. Not kept."""
        return

    def num_bytes(self, table: int) -> dict[str, int]:
        """See RowStore."""
        place = self._places[table]
        rows = place.rows if place.policy is None else place.policy.rows_in_use
        return {name: rows * t[:1].numel() * t.element_size() for name, t in self._columns(table).items()}


def _spans(lookup: Lookup) -> list[tuple[int, int, int]]:
    """(feature, first key, end) of every feature of a lookup."""
    ends = [int(lookup.offsets[position * lookup.num_rows]) for position in range(len(lookup.features) + 1)]
    return [(feature, ends[i], ends[i + 1]) for i, feature in enumerate(lookup.features)]

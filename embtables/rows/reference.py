"""The reference row store: plain torch on the CPU, obviously right; the oracle of every other store.

Fixed tables of one dimension and one optimizer lie in one arena, one after the other, so that a step sorts and sums
once an arena instead of once a table. A collisionless table has an arena of its own, whose row 0 is the cold row; which
key has which row is `KeyPolicy`'s.
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
from embtables.rows.arena import Arena, Place, arenas_of
from embtables.rows.content import TableContent
from embtables.rows.duplicates import SparseGradient, bag_numbers, concatenate, sum_duplicates
from embtables.rows.initial import initial_rows
from embtables.rows.key_policy import KeyPolicy
from embtables.rows.protocol import Ability, Capture, Changes, KeyState, Lookup, Segments, Taken
from embtables.rows.reference_state import age_bins, apply, key_state, of_age, take
from embtables.rows.rules import apply_rule
from embtables.rows.stored_table import StoredTable


@dataclass(frozen=True, slots=True)
class _Context:
    lookup: Lookup
    bags: list[tuple[int, Tensor, Tensor, Tensor | None]]  # arena, arena keys (n,), offsets, weights


class ReferenceRowStore:
    """Row store in plain torch."""

    abilities = frozenset(Ability)

    def __init__(self, tables: Sequence[StoredTable], slot_tables: Sequence[int]) -> None:
        self._tables = tuple(tables)
        self._slot_tables = tuple(slot_tables)
        self._factor = 1.0
        self._cut = 1
        self._changed: dict[int, dict[int, int]] = {}  # of fixed tables: key -> the cut in which its row last changed
        self._arenas, self._places = arenas_of(self._tables)

    def _place(self, slot: int) -> Place:
        return self._places[self._slot_tables[slot]]

    def pooled(self, lookup: Lookup, *, keep: bool) -> tuple[Tensor, object]:
        """See RowStore. One embedding_bag for each run of neighbouring slots in one arena."""
        if keep:
            self._observe([(slot, lookup.keys[start:stop]) for slot, start, stop in _spans(lookup)])
        b = lookup.num_rows
        bags: list[tuple[int, Tensor, Tensor, Tensor | None]] = []
        parts: list[Tensor] = []
        for arena, first, last in self._runs(lookup.slots):
            offsets = lookup.offsets[first * b : last * b + 1]
            start, stop = int(offsets[0]), int(offsets[-1])
            spans = _spans(lookup)[first:last]
            keys = torch.cat([self._place(s).rows_of(lookup.keys[i:j]) for s, i, j in spans])
            weights = None if lookup.weights is None else lookup.weights[start:stop]
            bag_offsets = offsets - start
            weight = self._arenas[arena].weight
            out = functional.embedding_bag(
                keys, weight, bag_offsets, mode="sum", per_sample_weights=weights, include_last_offset=True
            )
            # (f * B, D) -> (B, f * D)
            features, dim = last - first, weight.shape[1]
            parts.append(out.view(features, b, dim).transpose(0, 1).reshape(b, features * dim))
            bags.append((arena, keys, bag_offsets, weights))
        result = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        return result, _Context(lookup, bags) if keep else None

    def _runs(self, slots: Sequence[int]) -> list[tuple[int, int, int]]:
        """(arena, first, last) of runs of neighbouring slots in one arena."""
        runs: list[tuple[int, int, int]] = []
        for position, slot in enumerate(slots):
            arena = self._place(slot).arena
            if runs and runs[-1][0] == arena:
                runs[-1] = (arena, runs[-1][1], position + 1)
            else:
                runs.append((arena, position, position + 1))
        return runs

    def _observe(self, parts: Sequence[tuple[int, Tensor]]) -> None:
        """Counts the keys of a lookup of training, (slot, keys) in order; makes fresh rows."""
        keys_of: dict[int, list[int]] = {}
        for slot, keys in parts:
            if self._place(slot).policy is not None:
                keys_of.setdefault(self._slot_tables[slot], []).extend(keys.tolist())
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

    def add_gradient(self, context: object, gradient: Tensor, *, of_weights: bool) -> Tensor | None:
        """See RowStore."""
        assert isinstance(context, _Context)
        b = context.lookup.num_rows
        column = 0
        weight_gradients: list[Tensor] = []
        for arena, keys, offsets, weights in context.bags:
            dim = self._arenas[arena].weight.shape[1]
            features = (offsets.shape[0] - 1) // b if b else 0
            part = gradient[:, column : column + features * dim].float()
            column += features * dim
            by_bag = part.reshape(b, features, dim).transpose(0, 1).reshape(features * b, dim)
            bag_of_key = bag_numbers(offsets)
            self._arenas[arena].pending.append(SparseGradient(keys, bag_of_key, by_bag, weights))
            if of_weights:
                rows = self._arenas[arena].weight[keys]
                weight_gradients.append((rows * by_bag[bag_of_key]).sum(dim=1))
        return torch.cat(weight_gradients) if of_weights else None

    def gather(self, slots: Sequence[int], keys: Sequence[Tensor], *, keep: bool) -> tuple[list[Tensor], object]:
        """See RowStore."""
        if keep:
            self._observe(list(zip(slots, keys, strict=True)))
        rows = [self._place(slot).rows_of(k) for slot, k in zip(slots, keys, strict=True)]
        found = [self._arenas[self._place(slot).arena].weight[r] for slot, r in zip(slots, rows, strict=True)]
        return found, (slots, rows) if keep else None

    def add_row_gradients(self, context: object, gradients: Sequence[Tensor | None]) -> None:
        """See RowStore."""
        assert isinstance(context, tuple)
        for slot, rows, gradient in zip(*context, gradients, strict=True):
            if gradient is not None:
                self._keep_rows(slot, rows, torch.arange(len(rows)), gradient)

    def _keep_rows(self, slot: int, rows: Tensor, places: Tensor, gradient: Tensor) -> None:
        """Keeps the gradient gradient[places[i]] of rows[i]."""
        self._arenas[self._place(slot).arena].pending.append(SparseGradient(rows, places, gradient.float(), None))

    def resolve(self, segments: Segments, keys: Tensor, counts: Tensor | None, *, keep: bool) -> object:
        """See PartStore."""
        parts = list(zip(segments.slots, torch.split(keys, segments.sizes()), strict=True))
        if keep:
            often = torch.split(torch.ones_like(keys) if counts is None else counts, segments.sizes())
            self._observe([(slot, k.repeat_interleave(c)) for (slot, k), c in zip(parts, often, strict=True)])
        return segments, torch.cat([self._place(slot).rows_of(k) for slot, k in parts])

    def rows_into(self, message: Tensor, context: object) -> None:
        """See PartStore."""
        for slot, rows, part in self._parts_of(message, context):
            part.copy_(self._arenas[self._place(slot).arena].weight[rows])

    def _parts_of(self, message: Tensor, context: object) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Of each segment its slot, rows (n,) of the arena, and part (n, D) of the message."""
        assert isinstance(context, tuple)
        segments, rows = context
        for slot, keys, place in segments.each():
            dim = self._tables[self._slot_tables[slot]].config.dim
            of = rows[keys]
            yield slot, of, message[place : place + len(of) * dim].view(len(of), dim)

    def add_message(self, message: Tensor, context: object, used: npt.NDArray[np.bool_]) -> None:
        """See PartStore."""
        for (slot, rows, part), has_gradient in zip(self._parts_of(message, context), used.tolist(), strict=True):
            if not has_gradient:
                continue
            learns = torch.arange(len(rows))
            if self._tables[self._slot_tables[slot]].is_part and self._place(slot).policy is not None:
                learns = learns[rows != 0]  # the cold row's gradients are summed over all parts first
            self._keep_rows(slot, rows[learns], learns, part)

    def cold_keys(self, context: object) -> Tensor:
        """See PartStore."""
        assert isinstance(context, tuple)
        segments, rows = context
        grows = torch.tensor([self._place(slot).policy is not None for slot in segments.slots])
        found: Tensor = (rows == 0) & grows.repeat_interleave(torch.tensor(segments.sizes()))
        return found

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
        return tuple(self._parts(table))

    def _parts(self, table: int) -> dict[str, Tensor]:
        return self._arenas[self._places[table].arena].parts()

    def read(self, table: int, name: str, keys: Tensor) -> Tensor:
        """See RowStore."""
        return self._parts(table)[name][self._places[table].rows_of(keys)]

    def write(self, table: int, name: str, keys: Tensor, values: Tensor) -> None:
        """See RowStore."""
        place = self._places[table]
        rows, policy = place.rows_of(keys), place.policy
        if policy is not None and (rows == 0).any():
            missing = int(keys[int((rows == 0).int().argmax())])
            raise StateError(f"key {missing} has no row", table=self._tables[table].config.name)
        self._parts(table)[name][rows] = values
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

    def capture(self, table: int, after: int | None) -> Capture:
        """See RowStore. Counts of gradients are not kept."""
        changes = None if after is None else self.changes(table, after)
        place = self._places[table]
        return Taken(take(place, self._arenas[place.arena], self._tables[table].seed, changes))

    def apply(self, table: int, content: TableContent) -> None:
        """See RowStore."""
        place = self._places[table]
        apply(place, self._arenas[place.arena], content)

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
        self._refuse_pending("what is too much goes between two steps")
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

    def figures(self, table: int) -> Mapping[str, int]:
        """See RowStore. Only what the contract compares."""
        arena, policy = self._arenas[self._places[table].arena], self._places[table].policy
        found = {"refused_gradients": arena.refused}
        return found if policy is None else found | {"now": policy.now, "steps": policy.steps, "rows": policy.num_rows}

    def ages_and_counts(self, table: int) -> None:
        """See RowStore. Not kept."""
        return

    def num_bytes(self, table: int) -> dict[str, int]:
        """See RowStore."""
        place = self._places[table]
        rows = place.rows if place.policy is None else place.policy.rows_in_use
        return {name: rows * t[:1].numel() * t.element_size() for name, t in self._parts(table).items()}


def _spans(lookup: Lookup) -> list[tuple[int, int, int]]:
    """(slot, first key, end) of every slot of a lookup."""
    ends = [int(lookup.offsets[position * lookup.num_rows]) for position in range(len(lookup.slots) + 1)]
    return [(slot, ends[i], ends[i + 1]) for i, slot in enumerate(lookup.slots)]

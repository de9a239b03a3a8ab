"""The reference row store: plain torch on the CPU, obviously right; the oracle of every other store.

Tables of one dimension and one optimizer lie in one arena, one after the other, so that a step sorts and sums once an
arena instead of once a table. The optimizers are those of embtables/schema/tables.py, over touched rows only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from embtables.rows.duplicates import SparseGradient, bag_numbers, concatenate, sum_duplicates
from embtables.rows.initial import initial_rows
from embtables.rows.protocol import Ability, Lookup, StoredTable
from embtables.schema import Adagrad, Adam, Optimizer, RowwiseAdagrad

_INIT_ROWS = 65_536


@dataclass
class _Arena:
    """Tables of one (dim, optimizer), concatenated by rows."""

    optimizer: Optimizer
    weight: Tensor
    state: dict[str, Tensor]
    steps: int = 0
    pending: list[SparseGradient] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Context:
    lookup: Lookup
    bags: list[tuple[int, Tensor, Tensor, Tensor | None]]  # arena, arena keys (n,), offsets, weights


@dataclass(frozen=True, slots=True)
class _Place:
    arena: int
    base: int  # first row in the arena
    rows: int


class ReferenceRowStore:
    """Row store in plain torch."""

    abilities = frozenset({Ability.ADAM, Ability.WEIGHT_DECAY, Ability.ANY_DIM})

    def __init__(self, tables: Sequence[StoredTable], slot_tables: Sequence[int]) -> None:
        self._slot_tables = tuple(slot_tables)
        self._factor = 1.0
        groups: dict[str, list[int]] = {}
        for number, table in enumerate(tables):
            groups.setdefault(f"{table.config.dim}/{table.config.optimizer!r}", []).append(number)
        self._places: dict[int, _Place] = {}
        self._arenas: list[_Arena] = []
        for members in groups.values():
            rows = 0
            for number in members:
                size = tables[number].config.num_rows
                self._places[number] = _Place(len(self._arenas), rows, size)
                rows += size
            first = tables[members[0]].config
            arena = _Arena(
                first.optimizer, torch.empty(rows, first.dim), _fresh_state(first.optimizer, rows, first.dim)
            )
            self._arenas.append(arena)
            for number in members:
                _initialise(arena.weight, self._places[number], tables[number])

    def _place(self, slot: int) -> _Place:
        return self._places[self._slot_tables[slot]]

    def pooled(self, lookup: Lookup, *, keep: bool) -> tuple[Tensor, object]:
        """See RowStore. One embedding_bag for each run of neighbouring slots in one arena."""
        b = lookup.num_rows
        bags: list[tuple[int, Tensor, Tensor, Tensor | None]] = []
        parts: list[Tensor] = []
        for arena, first, last in self._runs(lookup.slots):
            offsets = lookup.offsets[first * b : last * b + 1]
            start, stop = int(offsets[0]), int(offsets[-1])
            keys = lookup.keys[start:stop] + self._bases(lookup, first, last)
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

    def _bases(self, lookup: Lookup, first: int, last: int) -> Tensor:
        """What turns each key of the slots first..last-1 into a row of their arena."""
        ends = lookup.offsets[first * lookup.num_rows : last * lookup.num_rows + 1 : max(lookup.num_rows, 1)]
        bases = torch.tensor([self._place(slot).base for slot in lookup.slots[first:last]])
        if lookup.num_rows == 0:
            return torch.zeros(0, dtype=torch.int64)
        return torch.repeat_interleave(bases, ends.diff())

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

    def gather(self, slot: int, keys: Tensor) -> Tensor:
        """See RowStore."""
        place = self._place(slot)
        return self._arenas[place.arena].weight[keys + place.base]

    def add_row_gradient(self, slot: int, keys: Tensor, gradient: Tensor) -> None:
        """See RowStore."""
        place = self._place(slot)
        sparse = SparseGradient(keys + place.base, torch.arange(len(keys)), gradient.float(), None)
        self._arenas[place.arena].pending.append(sparse)

    def gradient_norm(self) -> float:
        """See RowStore."""
        squares = 0.0
        for arena in self._arenas:
            if arena.pending:
                squares += float(sum_duplicates(concatenate(arena.pending))[1].double().square().sum())
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
            _apply(arena, rows, gradient, arena.optimizer.learning_rate * self._factor)

    def discard(self) -> None:
        """See RowStore."""
        for arena in self._arenas:
            arena.pending.clear()

    def state_names(self, table: int) -> Sequence[str]:
        """See RowStore."""
        return ("weight", *self._arenas[self._places[table].arena].state)

    def _tensor(self, table: int, name: str) -> Tensor:
        arena = self._arenas[self._places[table].arena]
        return arena.weight if name == "weight" else arena.state[name]

    def read(self, table: int, name: str, keys: Tensor) -> Tensor:
        """See RowStore."""
        return self._tensor(table, name)[keys + self._places[table].base]

    def write(self, table: int, name: str, keys: Tensor, values: Tensor) -> None:
        """See RowStore."""
        self._tensor(table, name)[keys + self._places[table].base] = values

    def num_steps(self, table: int) -> int:
        """See RowStore."""
        return self._arenas[self._places[table].arena].steps

    def set_num_steps(self, table: int, steps: int) -> None:
        """See RowStore."""
        self._arenas[self._places[table].arena].steps = steps

    def num_bytes(self, table: int) -> dict[str, int]:
        """See RowStore."""
        rows = self._places[table].rows
        tensors = {name: self._tensor(table, name) for name in self.state_names(table)}
        return {name: rows * t[:1].numel() * t.element_size() for name, t in tensors.items()}


def _initialise(weight: Tensor, place: _Place, table: StoredTable) -> None:
    for start in range(0, place.rows, _INIT_ROWS):
        keys = torch.arange(start, min(start + _INIT_ROWS, place.rows))
        fresh = initial_rows(table.config.initializer, table.seed, keys.numpy(), table.config.dim)
        weight[place.base + start : place.base + start + len(keys)] = torch.from_numpy(fresh)


def _fresh_state(optimizer: Optimizer, rows: int, dim: int) -> dict[str, Tensor]:
    if isinstance(optimizer, Adagrad):
        return {"sum": torch.zeros(rows, dim)}
    if isinstance(optimizer, RowwiseAdagrad):
        return {"sum": torch.zeros(rows)}
    if isinstance(optimizer, Adam):
        return {"exp_avg": torch.zeros(rows, dim), "exp_avg_sq": torch.zeros(rows, dim)}
    return {}


def _apply(arena: _Arena, rows: Tensor, gradient: Tensor, learning_rate: float) -> None:
    """One optimizer step over distinct rows (U,) with their gradients (U, D)."""
    optimizer, state = arena.optimizer, arena.state
    weight = arena.weight[rows]
    if optimizer.weight_decay > 0.0:
        gradient = torch.add(gradient, weight, alpha=optimizer.weight_decay)
    if isinstance(optimizer, Adagrad):
        total = state["sum"][rows].addcmul_(gradient, gradient)
        state["sum"][rows] = total
        weight.addcdiv_(gradient, total.sqrt_().add_(optimizer.eps), value=-learning_rate)
    elif isinstance(optimizer, RowwiseAdagrad):
        total = state["sum"][rows] + gradient.square().mean(dim=1)
        state["sum"][rows] = total
        weight.addcdiv_(gradient, total.sqrt_().add_(optimizer.eps).unsqueeze(1), value=-learning_rate)
    elif isinstance(optimizer, Adam):
        first = state["exp_avg"][rows].lerp_(gradient, 1.0 - optimizer.beta1)
        second = (
            state["exp_avg_sq"][rows].mul_(optimizer.beta2).addcmul_(gradient, gradient, value=1.0 - optimizer.beta2)
        )
        state["exp_avg"][rows] = first
        state["exp_avg_sq"][rows] = second
        step_size = learning_rate / (1.0 - optimizer.beta1**arena.steps)
        denominator = second.sqrt_().div_(math.sqrt(1.0 - optimizer.beta2**arena.steps)).add_(optimizer.eps)
        weight.addcdiv_(first, denominator, value=-step_size)
    else:
        weight.add_(gradient, alpha=-learning_rate)
    arena.weight[rows] = weight

"""Memory of the reference row store: rows of one dimension and one optimizer, table after table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from embtables.errors import DataError
from embtables.keyspace import buckets_of
from embtables.rows.duplicates import SparseGradient
from embtables.rows.initial import initial_rows
from embtables.rows.reference.key_policy import KeyPolicy
from embtables.rows.reference.rules import fresh_state
from embtables.rows.stored_table import StoredTable
from embtables.schema import CollisionlessTable, Optimizer

_INIT_ROWS = 65_536


@dataclass
class Arena:
    """Tables of one (dim, optimizer), concatenated by rows."""

    optimizer: Optimizer
    weight: Tensor
    state: dict[str, Tensor]
    first_row: int = 0  # rows below do not learn: a cold row of zeros is row 0
    steps: int = 0
    refused: int = 0  # rows whose gradient was not finite
    pending: list[SparseGradient] = field(default_factory=list)

    def columns(self) -> dict[str, Tensor]:
        """Weight and optimizer state, by name."""
        return {"weight": self.weight, **self.state}

    def keep(self, rows: Tensor, places: Tensor, gradient: Tensor) -> None:
        """Keeps the gradient gradient[places[i]] of rows[i] for the step."""
        self.pending.append(SparseGradient(rows, places, gradient.float(), None))

    def grow(self, rows: int) -> None:
        """Room for `rows` rows, at least doubled; the new ones are not initialised."""
        if rows > len(self.weight):
            more = max(rows, 2 * len(self.weight)) - len(self.weight)
            self.weight = torch.cat([self.weight, torch.zeros(more, self.weight.shape[1])])
            for name, values in fresh_state(self.optimizer, more, self.weight.shape[1]).items():
                self.state[name] = torch.cat([self.state[name], values])


@dataclass(frozen=True, slots=True)
class Place:
    """Where a table lies."""

    arena: int
    base: int  # first row in the arena
    rows: int  # of a fixed table
    policy: KeyPolicy | None  # of a collisionless table, alone in its arena
    keys: Tensor | None = None  # (rows,) ascending, of a part of a fixed table

    def rows_of(self, keys: Tensor) -> Tensor:
        """The arena's row of each key."""
        if self.policy is not None:
            return torch.tensor([self.policy.row(key) for key in keys.tolist()], dtype=torch.int64)
        if self.keys is None:
            return keys + self.base
        missing = keys[~torch.isin(keys, self.keys)]
        if len(missing):
            raise DataError(f"key {int(missing[0])} is not in this part of the table")
        return torch.searchsorted(self.keys, keys) + self.base

    def own_keys(self) -> Tensor:
        """The keys of a fixed table, in the order of its rows, (rows,)."""
        return torch.arange(self.rows) if self.keys is None else self.keys


def arenas_of(tables: Sequence[StoredTable]) -> tuple[list[Arena], dict[int, Place]]:
    """Arenas with the tables' initial rows, and where each table lies, by its number."""
    groups: dict[str, list[int]] = {}
    for number, table in enumerate(tables):
        own = f"/{number}" if isinstance(table.config, CollisionlessTable) else ""
        kind = f"{table.config.dim}/{table.config.optimizer!r}/{table.config.trainable}{own}"
        groups.setdefault(kind, []).append(number)
    arenas: list[Arena] = []
    places: dict[int, Place] = {}
    for members in groups.values():
        arena = _arena_of({number: tables[number] for number in members}, len(arenas), places)
        arenas.append(arena)
    return arenas, places


def _arena_of(members: Mapping[int, StoredTable], number: int, places: dict[int, Place]) -> Arena:
    """The arena of this number, with these tables; notes where they lie."""
    rows, first_row = 0, 0
    for table, stored in members.items():
        config = stored.config
        if isinstance(config, CollisionlessTable):
            places[table] = Place(number, 0, 1, KeyPolicy(config, stored.seed, stored.is_part))
            first_row = 0 if config.cold_row == "trained" else 1
        else:
            places[table] = _fixed_place(number, rows, config.num_rows, stored)
        rows += places[table].rows
    first = next(iter(members.values())).config
    state = fresh_state(first.optimizer, rows, first.dim)
    arena = Arena(first.optimizer, torch.zeros(rows, first.dim), state, first_row)
    for table, stored in members.items():
        if places[table].policy is None:
            _initialise(arena.weight, places[table], stored)
    return arena


def _fixed_place(arena: int, base: int, rows: int, table: StoredTable) -> Place:
    """Where a fixed table of so many rows lies: all of it, or the rows of its part."""
    if not table.is_part:
        return Place(arena, base, rows, None)
    keys = np.arange(rows)
    buckets = buckets_of(keys, table.seed)
    own = torch.from_numpy(keys[(table.buckets[0] <= buckets) & (buckets < table.buckets[1])])
    return Place(arena, base, len(own), None, own)


def _initialise(weight: Tensor, place: Place, table: StoredTable) -> None:
    """Gives a fixed table's rows their initial values."""
    for start in range(0, place.rows, _INIT_ROWS):
        keys = place.own_keys()[start : start + _INIT_ROWS]
        fresh = initial_rows(table.config.initializer, table.seed, keys.numpy(), table.config.dim)
        weight[place.base + start : place.base + start + len(keys)] = torch.from_numpy(fresh)

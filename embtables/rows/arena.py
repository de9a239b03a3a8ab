"""Memory of the reference row store: rows of one dimension and one optimizer, table after table."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from embtables.rows.duplicates import SparseGradient
from embtables.rows.initial import initial_rows
from embtables.rows.key_policy import KeyPolicy
from embtables.rows.protocol import StoredTable
from embtables.rows.rules import fresh_state
from embtables.schema import Optimizer

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

    def parts(self) -> dict[str, Tensor]:
        """Weight and optimizer state, by name."""
        return {"weight": self.weight, **self.state}

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

    def rows_of(self, keys: Tensor) -> Tensor:
        """The arena's row of each key."""
        if self.policy is None:
            return keys + self.base
        return torch.tensor([self.policy.row(key) for key in keys.tolist()], dtype=torch.int64)


def initialise(weight: Tensor, place: Place, table: StoredTable) -> None:
    """Gives a fixed table's rows their initial values."""
    for start in range(0, place.rows, _INIT_ROWS):
        keys = torch.arange(start, min(start + _INIT_ROWS, place.rows))
        fresh = initial_rows(table.config.initializer, table.seed, keys.numpy(), table.config.dim)
        weight[place.base + start : place.base + start + len(keys)] = torch.from_numpy(fresh)

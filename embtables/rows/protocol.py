"""`RowStore`: rows of several tables, looked up and updated by key. What is behind it may be RAM, disk or a device.

A store serves *slots*: one (feature, table) pair each, in the order of the features. A lookup names its slots and holds
their keys; the store pools by weighted sums and nothing else (mean pooling and per-id weights arrive as weights). Row
gradients are kept until `update`, which sums duplicates over all lookups of the step and updates each touched row once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from torch import Tensor

from embtables.schema import Table


class Ability(Enum):
    """What not every store can do."""

    ADAM = "adam"
    WEIGHT_DECAY = "weight_decay"
    ANY_DIM = "any_dim"


@dataclass(frozen=True, slots=True)
class StoredTable:
    """A table as a store sees it: its configuration and the seed of its initial rows."""

    config: Table
    seed: int


@dataclass(frozen=True, slots=True)
class Lookup:
    """Keys of F slots for B rows. Shape letters: B rows, F slots, N keys, D dim.

    Attributes:
        slots: F slot numbers of the store.
        keys: (N,) int64, slot after slot, row after row; each in 0..num_rows-1 of its table.
        offsets: (F * B + 1,) int64: the keys of slot f and row b are keys[offsets[f * B + b] : offsets[f * B + b + 1]].
        weights: (N,) float32 factors of the rows in the sum, or None for ones.
        num_rows: B.
    """

    slots: tuple[int, ...]
    keys: Tensor
    offsets: Tensor
    weights: Tensor | None
    num_rows: int


class RowStore(Protocol):
    """Rows of several tables. Constructed with the stored tables and, for each slot, its table's number."""

    abilities: frozenset[Ability]

    def pooled(self, lookup: Lookup, *, keep: bool) -> tuple[Tensor, object]:
        """(B, sum of D over the slots) weighted sums, and a context for `add_gradient`; `keep`: one will come."""

    def add_gradient(self, context: object, gradient: Tensor, *, of_weights: bool) -> Tensor | None:
        """Keeps the row gradients of a pooled lookup; gradient (B, sum D). Returns d/d weights (N,) if asked."""

    def gather(self, slot: int, keys: Tensor) -> Tensor:
        """Rows of keys (n,) -> (n, D), copied."""

    def add_row_gradient(self, slot: int, keys: Tensor, gradient: Tensor) -> None:
        """Keeps the gradients (n, D) of gathered rows."""

    def gradient_norm(self) -> float:
        """L2 norm over the kept row gradients, duplicates summed."""

    def set_learning_rate_factor(self, factor: float) -> None:
        """Updates go at the configured learning rates times `factor`. Cheapest when set before the step's lookups."""

    def update(self, gradient_scale: float) -> None:
        """Sums duplicates of the kept gradients times the scale, updates every touched row once, forgets them."""

    def discard(self) -> None:
        """Forgets the kept gradients."""

    def state_names(self, table: int) -> Sequence[str]:
        """Names of the table's tensors a row has a part of: `weight` and its optimizer states."""

    def read(self, table: int, name: str, keys: Tensor) -> Tensor:
        """That tensor's part of keys (n,): (n, D), or (n,) for a state of one value a row. A copy."""

    def write(self, table: int, name: str, keys: Tensor, values: Tensor) -> None:
        """Sets that tensor's part of keys (n,)."""

    def num_steps(self, table: int) -> int:
        """How many updates touched the table's store (Adam's t)."""

    def set_num_steps(self, table: int, steps: int) -> None:
        """Sets it, when a checkpoint is loaded."""

    def num_bytes(self, table: int) -> dict[str, int]:
        """Bytes by tensor name."""

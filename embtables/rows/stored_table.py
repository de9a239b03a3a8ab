"""A table as row stores and files have it."""

from __future__ import annotations

from dataclasses import dataclass

from embtables.keyspace import ALL_BUCKETS, Buckets
from embtables.rows.optimizers import OptimizerSpec, optimizer_spec
from embtables.rows.row_format import RowFormat
from embtables.schema import Table


@dataclass(frozen=True, slots=True)
class StoredTable:
    """A table as a store sees it: its configuration and the seed of its initial rows.

    Attributes:
        keys_of: a table whose keys it shares: lookups of training name the same keys of both in the same order, and
            both have one seed, so that a key is admitted, expires and is evicted in both at once. A store may keep one
            map for both.
        buckets: the range [first, end) of the key space that the store holds: a part of the table where it is not all.
            Keys given to the store are then of these buckets; of a collisionless table nothing checks that.
    """

    config: Table
    seed: int
    buckets: Buckets = ALL_BUCKETS
    keys_of: str | None = None

    @property
    def is_part(self) -> bool:
        """Whether others hold keys of the table too."""
        return self.buckets != ALL_BUCKETS

    @property
    def format(self) -> RowFormat:
        """How the columns of its rows lie."""
        return RowFormat(self.config.dim)

    @property
    def optimizer(self) -> OptimizerSpec:
        """How its rows learn. Raises ConfigError for an optimizer that is not registered."""
        return optimizer_spec(self.config.optimizer)

    @property
    def columns(self) -> dict[str, bool]:
        """What each of its rows consists of, the weight first; True: D values for each row, False: one."""
        return self.optimizer.columns

    def shape(self, column: str, rows: int) -> tuple[int, ...]:
        """Of that column of so many rows: (rows, D) or (rows,)."""
        return (rows, self.config.dim) if self.columns[column] else (rows,)

"""What a warm start did to a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from embtables.errors import DataError
from embtables.schema import CollisionlessTable
from embtables.tables.table_set import Tables

OnRows = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Warmed:
    """Rows that a warm start has set.

    Attributes:
        rows: rows set, each counted once.
        duplicates: vectors that a later one replaced, of the same id or, in a fixed table, of an id that shares its
            row.
    """

    table: str
    rows: int
    duplicates: int


class RowSetter:
    """Sets rows of one table, given by its number, and counts them; 8 bytes a vector are held for that."""

    def __init__(self, tables: Tables, number: int) -> None:
        self._tables = tables
        self._number = number
        self._keys: list[Tensor] = []
        self.config = tables.configs[number]

    def set(self, keys: Tensor, rows: Tensor) -> None:
        """Rows (n, D), finite, of keys (n,). Of several ranks, which all give the same, each brings a part of them."""
        own = self._tables.world.part_of(len(keys))
        self._tables.set_rows(self._number, keys[own], rows[own])
        self._keys.append(keys)

    def done(self) -> Warmed:
        """What was set.

        Raises:
            DataError: the table holds more rows now than its max_rows, and would evict them after the first step.
        """
        keys = np.concatenate([np.empty(0, np.int64), *(part.numpy() for part in self._keys)])
        rows = len(np.unique(keys))
        if isinstance(self.config, CollisionlessTable) and self.config.max_rows is not None and self.config.trainable:
            rows_of_all = torch.tensor([self._tables.rows.figures(self._number)["rows"]])
            self._tables.world.all_reduce(rows_of_all)
            held = int(rows_of_all)
            if held > self.config.max_rows:
                raise DataError(
                    f"holds {held:,} rows after the warm start, more than its max_rows of {self.config.max_rows:,}; "
                    "raise max_rows or give fewer vectors",
                    table=self.config.name,
                )
        return Warmed(self.config.name, rows, len(keys) - rows)

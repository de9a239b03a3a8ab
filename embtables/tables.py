"""`Tables`: the set of tables of one model, what features read them, and the step that updates them.

A forward pass (through the views of collections.py) keeps what its backward needs; backward keeps row gradients; `step`
sums duplicates and updates every touched row once. Nothing else changes a row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from embtables.errors import ConfigError, StateError
from embtables.ids import keys_per_id
from embtables.rows import ROW_STORES, RowStore, StoredTable
from embtables.rows.initial import table_seed
from embtables.schema import Feature, Table

_READ_ROWS = 1 << 20
RowStoreName = Literal["fbgemm", "reference"]


@dataclass(frozen=True, slots=True)
class Slot:
    """A feature that reads a table: what a lookup is made of."""

    number: int
    feature: Feature
    table: Table
    keys_per_id: int


@dataclass(frozen=True, slots=True)
class TableStats:
    """Figures of one table."""

    rows: int
    dim: int
    bytes_by_part: dict[str, int]
    steps: int


class Tables:
    """Tables and the features that read them; a feature may read several tables (once each).

    Args:
        tables: their configurations, names unique.
        features: what reads them, each naming its table.
        seed: the run's seed; initial rows are a pure function of (seed, table name, key).
        row_store: `fbgemm` (fast; SGD, Adagrad, rowwise Adagrad) or `reference` (plain torch; all options).

    Raises:
        ConfigError: a feature names an unknown table, or the row store lacks an option of a table.
    """

    def __init__(
        self, tables: Sequence[Table], features: Sequence[Feature], *, seed: int, row_store: RowStoreName = "fbgemm"
    ) -> None:
        self.configs = tuple(tables)
        numbers = {table.name: number for number, table in enumerate(tables)}
        for feature in features:
            if feature.table not in numbers:
                raise ConfigError(f"names table '{feature.table}', which is not given", feature=feature.name)
        self.slots = tuple(
            Slot(number, f, tables[numbers[f.table]], keys_per_id(f.encoder)) for number, f in enumerate(features)
        )
        stored = [StoredTable(table, table_seed(seed, table.name)) for table in tables]
        self.rows: RowStore = ROW_STORES[row_store](stored, [numbers[f.table] for f in features])
        self._numbers = numbers

    def set_learning_rate_factor(self, factor: float) -> None:
        """From now on every table learns at its configured rate times `factor`."""
        self.rows.set_learning_rate_factor(factor)

    def step(self, event_time_us: Tensor | None = None, *, gradient_scale: float = 1.0) -> None:
        """Updates every row touched since the last step, once, and forgets its gradients.

        Args:
            event_time_us: (B,) int64 event times of the batch. Fixed tables have no clock and do not read them; tables
                with admission and expiry will.
            gradient_scale: factor on all row gradients (clipping by global norm).
        """
        self.rows.update(gradient_scale)

    def gradient_norm(self) -> float:
        """L2 norm over the row gradients that the next `step` will apply, duplicates summed."""
        return self.rows.gradient_norm()

    def discard(self) -> None:
        """Forgets the row gradients kept since the last step."""
        self.rows.discard()

    def weight(self, table: str) -> Tensor:
        """All rows of a table, (V, D) float32; a copy."""
        return self._read_all(self._numbers[table], "weight")

    def set_weight(self, table: str, values: Tensor) -> None:
        """Replaces all rows of a table. Raises StateError where the shape differs."""
        self._write_all(self._numbers[table], "weight", values)

    def state(self) -> dict[str, Tensor]:
        """Everything `step` changes, copied: `tables/<name>/weight`, `tables/<name>/<optimizer state>`, `.../steps`."""
        state: dict[str, Tensor] = {}
        for number, config in enumerate(self.configs):
            for name in self.rows.state_names(number):
                state[f"tables/{config.name}/{name}"] = self._read_all(number, name)
            state[f"tables/{config.name}/steps"] = torch.tensor(self.rows.num_steps(number))
        return state

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Puts a state back. Raises StateError, naming the tensor, where one is missing, unknown or misshapen."""
        expected = {
            f"tables/{config.name}/{name}"
            for number, config in enumerate(self.configs)
            for name in (*self.rows.state_names(number), "steps")
        }
        for name in sorted(expected ^ set(state)):
            what = "is missing from the checkpoint" if name in expected else "is not part of these tables"
            raise StateError(f"{what}: the tables or their optimizers differ", tensor=name)
        for number, config in enumerate(self.configs):
            for name in self.rows.state_names(number):
                self._write_all(number, name, state[f"tables/{config.name}/{name}"])
            self.rows.set_num_steps(number, int(state[f"tables/{config.name}/steps"]))
        self.discard()

    def stats(self) -> dict[str, TableStats]:
        """Rows, dimension and bytes of every table."""
        return {
            config.name: TableStats(
                config.num_rows, config.dim, self.rows.num_bytes(number), self.rows.num_steps(number)
            )
            for number, config in enumerate(self.configs)
        }

    def _read_all(self, table: int, name: str) -> Tensor:
        rows = self.configs[table].num_rows
        return torch.cat(
            [
                self.rows.read(table, name, torch.arange(start, min(start + _READ_ROWS, rows)))
                for start in range(0, rows, _READ_ROWS)
            ]
        )

    def _write_all(self, table: int, name: str, values: Tensor) -> None:
        rows = self.configs[table].num_rows
        shape = self.rows.read(table, name, torch.zeros(1, dtype=torch.int64)).shape
        if tuple(values.shape) != (rows, *shape[1:]):
            raise StateError(
                f"has shape {tuple(values.shape)}, the table needs {(rows, *shape[1:])}",
                tensor=f"tables/{self.configs[table].name}/{name}",
            )
        for start in range(0, rows, _READ_ROWS):
            keys = torch.arange(start, min(start + _READ_ROWS, rows))
            self.rows.write(table, name, keys, values[start : start + len(keys)])

"""What the ranks decide together at a step: gradients of cold rows, and what is evicted above a limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from embtables.rows.limits import enforce, limits_of
from embtables.rows.protocol import PartStore, StoredTable
from embtables.schema import CollisionlessTable
from embtables.shard.world import World


class ColdGradients:
    """Gradients of trained cold rows, of one step: summed over the ranks, each of which then updates its copy alike.

    Args:
        tables: all of the store's, by number.
    """

    def __init__(self, world: World, local: PartStore, tables: Sequence[StoredTable]) -> None:
        self._world = world
        self._local = local
        self.dims: Mapping[int, int] = {
            number: table.config.dim
            for number, table in enumerate(tables)
            if isinstance(table.config, CollisionlessTable)
            and table.config.cold_row == "trained"
            and table.config.trainable
        }
        self._sums: dict[int, Tensor] = {}

    def note(self, tables: Sequence[int], gradients: Sequence[Tensor | None], cold: Sequence[Tensor]) -> None:
        """Adds the gradients (n, D) of some parts of a lookup, each of a table, where their keys read the cold row."""
        for table, gradient, of_cold in zip(tables, gradients, cold, strict=True):
            if gradient is None or table not in self.dims or not bool(of_cold.any()):
                continue
            total = self._sums.setdefault(table, torch.zeros(self.dims[table] + 1, dtype=torch.float64))
            total[:-1] += gradient[of_cold].double().sum(dim=0)
            total[-1] += 1.0

    def give(self) -> float:
        """Gives the sums to the local store; returns the sum of their squares."""
        if not self.dims:
            return 0.0
        nothing = {table: torch.zeros(dim + 1, dtype=torch.float64) for table, dim in self.dims.items()}
        sums = torch.cat([self._sums.get(table, zeros) for table, zeros in nothing.items()])
        self._sums.clear()
        self._world.all_reduce(sums)
        squares = 0.0
        parts = torch.tensor_split(sums, torch.tensor([dim + 1 for dim in self.dims.values()]).cumsum(0)[:-1])
        for table, total in zip(self.dims, parts, strict=True):
            if float(total[-1]) > 0.0:
                gradient = total[:-1].float()
                self._local.add_cold_gradient(table, gradient)
                squares += float(gradient.double().square().sum())
        return squares

    def forget(self) -> None:
        """Of a step that is not taken."""
        self._sums.clear()


class Limits:
    """`max_rows` and `max_waiting` of tables whose keys lie with all ranks."""

    def __init__(self, world: World, local: PartStore, tables: Sequence[StoredTable]) -> None:
        self._world = world
        self._local = local
        self._limits: list[tuple[int, bool, int]] = []
        for number, table in enumerate(tables):
            if isinstance(table.config, CollisionlessTable) and table.config.trainable:
                max_rows, max_waiting = limits_of(table.config)
                self._limits += [] if max_rows is None else [(number, False, max_rows)]
                self._limits += [(number, True, max_waiting)] if max_waiting else []

    def enforce(self) -> None:
        """Evicts what is too much, after a step."""
        if not self._limits:
            return
        numbers = torch.tensor([self._local.num_held(table)[waiting] for table, waiting, _ in self._limits])
        self._world.all_reduce(numbers)
        for (table, waiting, most), number in zip(self._limits, numbers.tolist(), strict=True):
            enforce(_Held(self._world, self._local, table, waiting, number), most)


class _Held:
    """See embtables.rows.limits.Held."""

    def __init__(self, world: World, local: PartStore, table: int, waiting: bool, number: int) -> None:
        self._world, self._local, self._table, self._waiting = world, local, table, waiting
        self._number = number

    def number(self) -> int:
        return self._number

    def age_bins(self) -> Tensor:
        bins = self._local.age_bins(self._table, self._waiting)
        self._world.all_reduce(bins)
        return bins

    def of_age(self, chosen: int) -> tuple[Tensor, Tensor]:
        seen, mixes = self._local.of_age(self._table, self._waiting, chosen)
        return torch.cat(self._world.all_gather(seen)), torch.cat(self._world.all_gather(mixes))

    def crowd_out(self, chosen: int, seen: int, mix: int) -> None:
        self._local.crowd_out(self._table, self._waiting, chosen, seen, mix)

"""What the ranks decide together at a step: what is evicted above a limit."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from embtables.rows.limits import enforce, limits_of
from embtables.rows.protocol import PartStore
from embtables.rows.stored_table import StoredTable
from embtables.schema import CollisionlessTable
from embtables.shard.world import World


class Limits:
    """`max_rows` and `max_waiting` of tables whose keys are spread over all ranks."""

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
        """Evicts what exceeds the limits, after a step."""
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

    def evict(self, chosen: int, seen: int, mix: int) -> None:
        self._local.evict(self._table, self._waiting, chosen, seen, mix)

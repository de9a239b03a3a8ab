"""Rows that every rank has a copy of: trained cold rows, and the rows of replicated tables.

lookups of a step -> sums by row, with how often each occurred -> one all_reduce -> every rank updates its copies alike

Written and read with versions, a replicated table is as any other: each rank tells the rows that it owns, and those of
the others come from them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from embtables.native import _core
from embtables.rows.protocol import Capture, PartStore, StoredTable
from embtables.schema import CollisionlessTable, FixedTable
from embtables.shard.exchange import Asked, spans
from embtables.shard.world import World
from embtables.state.content import TableContent
from embtables.state.ranks import restrict


class CopiedGradients:
    """Gradients of copied rows, of one step.

    Of each table that has such rows (R of D floats) the ranks add up R * (D + 1) + 1 floats: sums, how often rows
    occurred in what was used, and in how many lookups. Above 2^24 occurrences of a row in a step its count is rounded.

    Args:
        tables: all of the store's, by number.
        replicated: which of them every rank has whole.
    """

    def __init__(
        self, world: World, local: PartStore, tables: Sequence[StoredTable], replicated: Collection[int]
    ) -> None:
        self._world = world
        self._local = local
        shapes: dict[int, tuple[int, int]] = {}
        for number, table in enumerate(tables):
            config = table.config
            if not config.trainable:
                continue
            if number in replicated:
                assert isinstance(config, FixedTable)
                shapes[number] = config.num_rows, config.dim + 1
            elif isinstance(config, CollisionlessTable) and config.cold_row == "trained":
                shapes[number] = 1, config.dim + 1
        self._sums = torch.zeros(sum(rows * width for rows, width in shapes.values()) + len(shapes))
        sizes = [rows * width for rows, width in shapes.values()]
        parts = torch.split(self._sums, sizes + [1] * len(shapes))
        self._rows = {n: part.view(shape) for (n, shape), part in zip(shapes.items(), parts, strict=False)}
        self._lookups = self._sums[len(self._sums) - len(shapes) :]
        self._places = {table: place for place, table in enumerate(shapes)}
        self._replicated = replicated
        self._given: dict[int, list[tuple[Tensor, Tensor]]] = {}

    def note(self, asked: Asked, tables: Sequence[int], gradients: Sequence[Tensor | None]) -> None:
        """Adds what of a lookup's gradients (n, D), by block and rank as this owner got them, is of copied rows."""
        if self._rows.keys().isdisjoint(tables):
            return
        parts = [span for block in range(len(asked.blocks.tables)) for span in spans(asked.received, block)]
        cold = torch.split(self._local.cold_keys(asked.context), [span.stop - span.start for span in parts])
        for table, gradient, span, of_cold in zip(tables, gradients, parts, cold, strict=True):
            if gradient is None or table not in self._rows:
                continue
            if table in self._replicated:
                assert asked.counts is not None
                self._lookups[self._places[table]] += 1.0
                keys, counts = asked.keys[span].numpy(), asked.counts[span].numpy()
                _core.add_rows(self._rows[table].numpy(), keys, counts, gradient.numpy())
            elif bool(of_cold.any()):
                self._lookups[self._places[table]] += 1.0
                self._rows[table][0, :-1] += gradient[of_cold].sum(dim=0, dtype=torch.float64)

    def give(self) -> None:
        """Gives the sums over ranks to the local store."""
        if not self._rows:
            return
        self._world.all_reduce(self._sums)
        used = [table for table, lookups in zip(self._rows, self._lookups.tolist(), strict=True) if lookups > 0.0]
        for table in used:
            if table not in self._replicated:
                gradient = self._rows[table][:, :-1].clone()
                self._local.add_cold_gradient(table, gradient[0])
                self._given.setdefault(table, []).append((torch.zeros(1, dtype=torch.int64), gradient))
        self._give_rows([table for table in used if table in self._replicated])
        self._sums.zero_()

    def _give_rows(self, tables: list[int]) -> None:
        """Those of replicated tables, as if this rank had looked up what all ranks did."""
        if not tables:
            return
        keys: list[Tensor] = []
        counts: list[Tensor] = []
        gradients: list[Tensor] = []
        for table in tables:
            found = [torch.from_numpy(part) for part in _core.used_rows(self._rows[table].numpy())]
            keys.append(found[0])
            counts.append(found[1])
            gradients.append(found[2].view(len(found[0]), self._rows[table].shape[1] - 1))
        _, context = self._local.gather(tables, keys, keep=True, counts=counts)
        self._local.add_row_gradients(context, gradients)
        for table, of, gradient in zip(tables, keys, gradients, strict=True):
            self._given.setdefault(table, []).append((of, gradient))

    def squares(self) -> float:
        """Of the gradients that were given for the step to come."""
        found = 0.0
        for given in self._given.values():
            rows, places = np.unique(torch.cat([keys for keys, _ in given]).numpy(), return_inverse=True)
            gradients = torch.cat([gradient for _, gradient in given])
            sums = torch.zeros(len(rows), gradients.shape[1]).index_add_(0, torch.from_numpy(places), gradients)
            found += float(sums.double().square().sum())
        return found

    def end_step(self) -> None:
        """The step was taken, or is not taken."""
        self._sums.zero_()
        self._given.clear()


class OwnedCapture(Capture):
    """What this rank owns of a replicated table."""

    def __init__(self, whole: Capture, seed: int, world: World) -> None:
        self._whole, self._seed, self._buckets = whole, seed, world.buckets()

    def streamed(self) -> TableContent:
        """See Capture."""
        return restrict(self._whole.streamed(), self._seed, self._buckets)

    def close(self) -> None:
        """See Capture."""
        self._whole.close()


def joined(world: World, own: TableContent) -> TableContent:
    """The content of a fixed table from what each rank owns of it. Called by all ranks."""

    def of_all(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        told = world.gather_bytes(values.tobytes())
        return np.concatenate([np.frombuffer(t, values.dtype).reshape(-1, *values.shape[1:]) for t in told])

    own = own.gathered()
    return replace(
        own,
        keys=of_all(own.keys),
        parts={name: of_all(own.parts[name]) for name in sorted(own.parts)},
        seen=of_all(own.seen),
        counts=of_all(own.counts),
        begins=None,
    )

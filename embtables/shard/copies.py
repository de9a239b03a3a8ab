"""Rows that every rank has a copy of: trained cold rows, and the rows of replicated tables.

lookups of a step -> sums by row, with how often each occurred -> one all_reduce -> every rank updates its copies alike

Versions write and read a replicated table like any other: each rank gives the rows that it owns, and those of
the others come from them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from embtables.native import _core
from embtables.rows.content import TableContent, restrict
from embtables.rows.protocol import Capture, PartStore, Segments
from embtables.rows.stored_table import StoredTable
from embtables.schema import CollisionlessTable, FixedTable, Table
from embtables.shard.exchange import FLOAT_BYTES, Asked, OwnersGradients
from embtables.shard.world import World


def _shape(table: Table, *, replicated: bool) -> tuple[int, int] | None:
    """(R, D + 1) of the sums of a table's copied rows; None if it has no such rows that learn."""
    if not table.trainable:
        return None
    if replicated:
        assert isinstance(table, FixedTable)
        return table.num_rows, table.dim + 1
    if isinstance(table, CollisionlessTable) and table.cold_row == "trained":
        return 1, table.dim + 1
    return None


def copied_bytes(table: Table, *, replicated: bool) -> int:
    """Bytes that the ranks sum at each step for a table's copied rows."""
    shape = _shape(table, replicated=replicated)
    return 0 if shape is None else FLOAT_BYTES * (shape[0] * shape[1] + 1)


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
            shape = _shape(table.config, replicated=number in replicated)
            if shape is not None:
                shapes[number] = shape
        self._sums = torch.zeros(sum(rows * width for rows, width in shapes.values()) + len(shapes))
        sizes = [rows * width for rows, width in shapes.values()]
        views = torch.split(self._sums, sizes + [1] * len(shapes))
        self._rows = {n: view.view(shape) for (n, shape), view in zip(shapes.items(), views, strict=False)}
        self._lookups = self._sums[len(self._sums) - len(shapes) :]
        self._places = {table: place for place, table in enumerate(shapes)}
        self._replicated = replicated
        self._given: dict[int, list[tuple[Tensor, Tensor]]] = {}
        # By table, gradients of its cold row that were not finite: every rank's store has refused them.
        self.refused_cold: Counter[int] = Counter()

    def note(self, asked: Asked, got: OwnersGradients) -> None:
        """Adds what of the gradients that this owner got is of copied rows."""
        if self._rows.keys().isdisjoint(asked.blocks.tables):
            return
        cold = asked.owned.cold_keys().numpy()
        for block, table in enumerate(asked.blocks.tables):
            if table in self._replicated and table in self._rows:
                self._note_own(asked, got, block, table)
            elif table in self._rows:
                self._note_cold(asked, got, block, cold)

    def _note_own(self, asked: Asked, got: OwnersGradients, block: int, table: int) -> None:
        """Those of a replicated table: all keys in it are this rank's."""
        segment = block * self._world.size + self._world.rank
        if not got.used[segment]:
            return
        begin, end = asked.segments.bounds[segment : segment + 2]
        sums = self._rows[table]
        place, dim = int(asked.segments.places[segment]), sums.shape[1] - 1
        gradient = got.message[place : place + (end - begin) * dim].view(-1, dim)
        keys, counts = asked.keys[begin:end].numpy(), asked.counts[begin:end].numpy()
        _core.add_rows(sums.numpy(), keys, counts, gradient.numpy())
        self._lookups[self._places[table]] += 1.0

    def _note_cold(self, asked: Asked, got: OwnersGradients, block: int, cold: npt.NDArray[np.bool_]) -> None:
        """Those of a trained cold row, which any rank's keys may read."""
        table, segments = asked.blocks.tables[block], asked.segments
        begin, end = segments.bounds[[block * segments.ranks, (block + 1) * segments.ranks]]
        keys = begin + np.flatnonzero(cold[begin:end])
        # Of empty segments, which begin where the next one does, the last is the one with the key.
        of = np.searchsorted(segments.bounds, keys, side="right") - 1
        keys, of = keys[got.used[of]], of[got.used[of]]
        if not len(keys):
            return
        row = self._rows[table][0, :-1]
        places = segments.places[of] + (keys - segments.bounds[of]) * len(row)
        gradients = np.lib.stride_tricks.sliding_window_view(got.message.numpy(), len(row))[places]
        row += torch.from_numpy(gradients.sum(axis=0, dtype=np.float64))
        self._lookups[self._places[table]] += 1.0

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
        found = [[torch.from_numpy(part) for part in _core.used_rows(self._rows[table].numpy())] for table in tables]
        keys, counts, gradients = (torch.cat(parts) for parts in zip(*found, strict=True))
        bounds = np.cumsum([0, *(len(of) for of, _, _ in found)])
        places = np.cumsum([0, *(len(gradient) for _, _, gradient in found)])[:-1]
        owned = self._local.train_owned(Segments(tuple(tables), bounds, places), keys, counts)
        owned.add_message(gradients, np.ones(len(tables), np.bool_))
        for table, (of, _, gradient) in zip(tables, found, strict=True):
            self._given.setdefault(table, []).append((of, gradient.view(len(of), self._rows[table].shape[1] - 1)))

    def squares(self) -> float:
        """Of the gradients that were given for the step to come."""
        found = 0.0
        for given in self._given.values():
            rows, places = np.unique(torch.cat([keys for keys, _ in given]).numpy(), return_inverse=True)
            gradients = torch.cat([gradient for _, gradient in given])
            sums = torch.zeros(len(rows), gradients.shape[1]).index_add_(0, torch.from_numpy(places), gradients)
            found += float(sums.double().square().sum())
        return found

    def count_refused(self, gradient_scale: float) -> None:
        """Looks at the cold rows' gradients of the step that is taken with this factor."""
        for table, given in self._given.items():
            if table not in self._replicated:
                summed = torch.cat([gradient for _, gradient in given]).mul_(gradient_scale).sum(dim=0)
                self.refused_cold[table] += not bool(summed.isfinite().all())

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
        gathered = world.gather_bytes(values.tobytes())
        return np.concatenate([np.frombuffer(t, values.dtype).reshape(-1, *values.shape[1:]) for t in gathered])

    own = own.gathered()
    return replace(
        own,
        keys=of_all(own.keys),
        columns={name: of_all(own.columns[name]) for name in sorted(own.columns)},
        seen=of_all(own.seen),
        counts=of_all(own.counts),
        begins=None,
    )

"""`LevelLookup`: the embeddings of some features for n rows, and which of their ids read a cold row.

A request's features are looked up at two levels: those of the context for one row, those of the candidates for K. The
views of the model say which columns each feature's vector fills.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from embtables.inputs.batch import JaggedIds
from embtables.lookup.views import PooledFirstOrderView, Span
from embtables.models.dense_net import DenseNet, PooledViews
from embtables.schema.schema import LINEAR_PREFIX
from embtables.serving.scoring.features.levels import LevelRows
from embtables.serving.scoring.lookup.keyed import KeyedIds, SumLookup
from embtables.tables.lookup_tables import LookupTables
from embtables.tables.served_tables import ServedTables
from embtables.tables.table_feature import TableFeature

Float32s = npt.NDArray[np.float32]
Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Move:
    """Columns of what a view gives for a level, and where they go in an input of the dense net.

    Attributes:
        number: of the input.
        source, target: equally wide.
    """

    number: int
    source: slice
    target: slice


class ColdRows(NamedTuple):
    """How many ids of a feature were read, how many of them are cold, and the rows with at least one, ascending."""

    table: str
    ids: int
    cold_ids: int
    rows: Int64s


class LevelLookup:
    """Looks features up for n rows; used by any thread.

    Args:
        net: whose inputs are filled.
        tables: what its views look up.
        names: the features.
    """

    def __init__(self, net: DenseNet, tables: ServedTables, names: Collection[str]) -> None:
        self._tables = tables
        self._views: list[tuple[PooledViews, list[SumLookup] | None, list[Move]]] = []
        number = 0
        for view in net.views:
            part = view.part(names)
            part.eval()
            moves = _moves(number, view.spans, part.spans, 0)
            number += 1
            if isinstance(view, PooledFirstOrderView) and isinstance(part, PooledFirstOrderView):
                width = sum(width for _, width in part.spans)
                moves += _moves(number, view.first_order_spans, part.first_order_spans, width)
                number += 1
            if moves:
                has_products = any(read.combine == "product" for read in part.features)
                sums = None if has_products else [SumLookup(tables, each) for each in part.sums]
                self._views.append((part, sums, moves))
        self._shown = {read.number for read in shown_readers(tables)}

    def fill(
        self, inputs: Sequence[Float32s], of: LevelRows, rows: slice, ends: Int64s, repeats: Int64s | None = None
    ) -> list[dict[str, ColdRows]]:
        """Writes the columns of a level's features into rows of the dense net's inputs.

        Args:
            inputs: (rows, width) each.
            of: n rows, of R requests.
            rows: n; or, with `repeats`, their sum.
            ends: (R,) the end of each request's part of the n rows.
            repeats: (n,) how often each row is written.

        Returns:
            Of each request by feature, what of it is cold.
        """
        cold: list[dict[str, ColdRows]] = [{} for _ in ends]
        keyed: dict[str, KeyedIds] = {}
        for view, sums, moves in self._views:
            found = (
                self._multiplied(view, of, ends, cold) if sums is None else self._summed(sums, of, ends, keyed, cold)
            )
            if repeats is not None and len(found) > 1:
                found = np.repeat(found, repeats, axis=0)
            for move in moves:
                inputs[move.number][rows, move.target] = found[:, move.source]
        return cold

    def _summed(
        self,
        sums: Sequence[SumLookup],
        of: LevelRows,
        ends: Int64s,
        keyed: dict[str, KeyedIds],
        cold: list[dict[str, ColdRows]],
    ) -> Float32s:
        parts = []
        for lookup in sums:
            for read in lookup.features:
                if read.feature.name not in keyed:  # first-order weights have the same keys
                    keyed[read.feature.name] = _keyed(read, of)
            ids = [keyed[read.feature.name] for read in lookup.features]
            parts.append(lookup.pooled(ids, of.n))
            if self._shown.isdisjoint(lookup.numbers):
                continue
            for read, of_read, is_cold in zip(lookup.features, ids, lookup.cold(ids), strict=True):
                if read.number in self._shown:
                    _put_cold(cold, read, of_read, is_cold, ends)
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    @torch.no_grad()
    def _multiplied(self, view: PooledViews, of: LevelRows, ends: Int64s, cold: list[dict[str, ColdRows]]) -> Float32s:
        """What a view gives that multiplies rows: asked as a whole."""
        ids = _jagged(of)
        given = view(ids)
        for read in view.features:
            keyed = _keyed(read, of)
            is_cold = self._tables.rows.cold(self._tables.number(read.table.name), keyed.keys)
            _put_cold(cold, read, keyed, is_cold, ends)
        found: Float32s = (torch.cat(given, dim=1) if isinstance(given, tuple) else given).numpy()
        return found


def shown_readers(tables: LookupTables) -> list[TableFeature]:
    """What reads embeddings; of a feature that has first-order weights alone, what reads those."""
    found: dict[str, TableFeature] = {}
    for read in sorted(tables.features, key=lambda read: read.table.name.startswith(LINEAR_PREFIX)):
        found.setdefault(read.feature.name, read)
    return list(found.values())


def _keyed(read: TableFeature, of: LevelRows) -> KeyedIds:
    ids, are_keys = of.ids[read.feature.name]
    return KeyedIds(ids.values if are_keys else read.encoder.encode(ids.values), ids.lengths, ids.weights)


def _put_cold(
    into: Sequence[dict[str, ColdRows]],
    read: TableFeature,
    of: KeyedIds,
    is_cold: npt.NDArray[np.bool_],
    ends: Int64s,
) -> None:
    """Of each request, whose rows end at `ends`, what of a feature is cold."""
    if read.keys_per_id > 1:
        is_cold = np.logical_or.reduce(is_cold.reshape(-1, read.keys_per_id), axis=1)
    bad, ids = is_cold.nonzero()[0], ends
    if of.lengths is not None:
        after = np.cumsum(of.lengths)
        ids = after[ends - 1]
        bad = np.searchsorted(after, bad, side="right") if len(bad) else bad
    name, table = read.feature.name, read.table.name
    first = 0
    if not len(bad):
        for found, last in zip(into, ids.tolist(), strict=True):
            found[name] = ColdRows(table, last - first, 0, bad)
            first = last
        return
    rows = bad[np.concatenate(([True], bad[1:] != bad[:-1]))]
    cold, parts = np.searchsorted(bad, ends).tolist(), np.searchsorted(rows, ends).tolist()
    start = before = at = 0
    for found, end, last, of_ids, part in zip(into, ends.tolist(), ids.tolist(), cold, parts, strict=True):
        found[name] = ColdRows(table, last - first, of_ids - before, rows[at:part] - start)
        start, first, before, at = end, last, of_ids, part


def _jagged(of: LevelRows) -> JaggedIds:
    """The ids of a level as views take them."""
    weighted = any(ids.weights is not None for ids, _ in of.ids.values())
    weights = [
        np.ones(len(ids.values), np.float32) if ids.weights is None else ids.weights for ids, _ in of.ids.values()
    ]
    return JaggedIds(
        tuple(of.ids),
        torch.from_numpy(np.concatenate([ids.values for ids, _ in of.ids.values()])),
        torch.from_numpy(np.concatenate([ids.lengths_of(of.n) for ids, _ in of.ids.values()])),
        of.n,
        torch.from_numpy(np.concatenate(weights)) if weighted else None,
    )


def _moves(number: int, whole: Sequence[Span], part: Sequence[Span], first: int) -> list[Move]:
    """From the columns of a part of a view to those of the whole, neighbours moved together."""
    starts, at = dict[str, int](), 0
    for name, width in whole:
        starts[name], at = at, at + width
    found: list[Move] = []
    for name, width in part:
        source, target = slice(first, first + width), slice(starts[name], starts[name] + width)
        if found and found[-1].target.stop == target.start:
            source, target = slice(found[-1].source.start, source.stop), slice(found[-1].target.start, target.stop)
            found.pop()
        found.append(Move(number, source, target))
        first += width
    return found

"""`LevelLookup`: the embeddings of some features for n rows, and which of their ids read a cold row.

A request's features are looked up at two levels: those of the context for one row, those of the candidates for K. The
views of the model say which columns each feature's vector fills.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt
import torch

from embtables.inputs.batch import JaggedIds
from embtables.lookup.request import KeyedIds, keyed_lookup
from embtables.lookup.views import PooledFirstOrderView, Span
from embtables.models.dense_net import DenseNet, PooledViews
from embtables.rows.protocol import Lookup
from embtables.schema.schema import LINEAR_PREFIX
from embtables.serving.scoring.features.levels import LevelRows
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


@dataclass(frozen=True, slots=True)
class ColdRows:
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
        self._views: list[tuple[PooledViews, bool, list[Move]]] = []
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
                self._views.append((part, has_products, moves))
        self._shown = {read.number + block: read for read in shown_readers(tables) for block in range(read.blocks)}

    @torch.no_grad()
    def fill(self, inputs: Sequence[Float32s], of: LevelRows, rows: slice) -> dict[str, ColdRows]:
        """Writes the columns of a level's features into rows of the dense net's inputs.

        Args:
            inputs: (rows, width) each.
            of: n rows, or one for all `rows`.
            rows: n, or any number for one row.

        Returns:
            By feature, what of it is cold.
        """
        cold: dict[str, ColdRows] = {}
        keyed: dict[str, KeyedIds] = {}
        for view, has_products, moves in self._views:
            found = self._multiplied(view, of, cold) if has_products else self._summed(view, of, keyed, cold)
            for move in moves:
                inputs[move.number][rows, move.target] = found[:, move.source]
        return cold

    def _summed(
        self, view: PooledViews, of: LevelRows, keyed: dict[str, KeyedIds], cold: dict[str, ColdRows]
    ) -> Float32s:
        parts = []
        for features, beside in view.sums:
            for read in features:
                if read.feature.name not in keyed:  # first-order weights have the same keys
                    keyed[read.feature.name] = _keyed(read, of)
            ids = [keyed[read.feature.name] for read in features]
            lookup = keyed_lookup(features, ids, of.n, beside)
            parts.append(self._tables.rows.pooled(lookup).numpy())
            self._note_cold(lookup, ids, features, cold)
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def _note_cold(
        self, lookup: Lookup, ids: Sequence[KeyedIds], features: Sequence[TableFeature], cold: dict[str, ColdRows]
    ) -> None:
        """Which ids of a lookup have no row, by feature; looked for once for neighbours of one table."""
        shown = [(read, of) for read, of in zip(features, ids, strict=True) if read.number in self._shown]
        for name, group in groupby(shown, key=lambda each: each[0].table.name):
            together = list(group)
            keys = together[0][1].keys if len(together) == 1 else np.concatenate([of.keys for _, of in together])
            is_cold = self._tables.rows.cold(self._tables.number(name), keys)
            at = 0
            for read, of in together:
                bad = np.flatnonzero(is_cold[at : at + len(of.keys)])
                at += len(of.keys)
                count = len(of.keys) // read.keys_per_id
                if read.keys_per_id > 1:
                    bad = np.unique(bad // read.keys_per_id)
                rows = bad if of.lengths is None or not len(bad) else _rows_of(bad, of.lengths)
                cold[read.feature.name] = ColdRows(name, count, len(bad), rows)

    def _multiplied(self, view: PooledViews, of: LevelRows, cold: dict[str, ColdRows]) -> Float32s:
        """What a view gives that multiplies rows: asked as a whole."""
        ids = _jagged(of)
        given = view(ids)
        for read in view.features:
            keyed = _keyed(read, of)
            is_cold = (
                self._tables.rows.cold(self._tables.number(read.table.name), keyed.keys)
                .reshape(-1, read.keys_per_id)
                .any(axis=1)
            )
            bad = np.flatnonzero(is_cold)
            rows = bad if keyed.lengths is None else _rows_of(bad, keyed.lengths)
            cold[read.feature.name] = ColdRows(read.table.name, len(is_cold), len(bad), rows)
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


def _rows_of(places: Int64s, lengths: Int64s) -> Int64s:
    """The rows, each once, of the ids at some places."""
    return np.unique(np.searchsorted(np.cumsum(lengths), places, side="right"))


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

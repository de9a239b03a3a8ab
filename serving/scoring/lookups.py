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
from embtables.inputs.features import Block, make_batch
from embtables.lookup.views import PooledFirstOrderView, Span
from embtables.models.dense_net import DenseNet, PooledViews
from embtables.rows.protocol import Lookup
from embtables.schema.schema import LINEAR_PREFIX
from embtables.tables.lookup_tables import LookupTables
from embtables.tables.served_tables import ServedTables
from embtables.tables.table_feature import TableFeature

Float32s = npt.NDArray[np.float32]
Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Move:
    """Columns of what a view of a level gives, and where they go in an input of the dense net.

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
    """Looks features up for n rows. It is made for one version and used by any thread.

    Args:
        net: whose inputs are filled.
        tables: what its views look up.
        names: the features; others are left alone.
    """

    def __init__(self, net: DenseNet, tables: ServedTables, names: Collection[str]) -> None:
        self._tables = tables
        self._views: list[tuple[PooledViews, list[Move]]] = []
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
                self._views.append((part, moves))
        self._shown = {read.number + block: read for read in shown_readers(tables) for block in range(read.blocks)}

    def fill(self, inputs: Sequence[Float32s], block: Block, names: list[str], rows: slice) -> dict[str, ColdRows]:
        """Writes the columns of the features of a block into rows of the dense net's inputs.

        Args:
            inputs: (rows, width) each.
            block: n rows of features, or one for all `rows`.
            names: of the block's features.
            rows: n, or any number for one row.

        Returns:
            By feature, what of it is cold.
        """
        cold: dict[str, ColdRows] = {}
        if not self._views:
            return cold
        ids = make_batch(names, [(block, 0, block.num_rows)]).ids
        for view, moves in self._views:
            found = self._looked_up(view, ids, cold)
            for move in moves:
                inputs[move.number][rows, move.target] = found[:, move.source]
        return cold

    @torch.no_grad()
    def _looked_up(self, view: PooledViews, ids: JaggedIds, cold: dict[str, ColdRows]) -> Float32s:
        lookups = view.lookups(ids)
        if lookups is None:
            given = view(ids)
            self._note_products(view, ids, cold)
            found: Float32s = (torch.cat(given, dim=1) if isinstance(given, tuple) else given).numpy()
            return found
        parts = []
        for lookup in lookups:
            parts.append(self._tables.rows.pooled(lookup).numpy())
            self._note_cold(lookup, cold)
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def _note_cold(self, lookup: Lookup, cold: dict[str, ColdRows]) -> None:
        """Which keys of a lookup have no row, by feature; looked for once for neighbours of one table."""
        b, offsets = lookup.num_rows, lookup.offsets.numpy()
        for table, group in groupby(enumerate(lookup.features), key=lambda each: self._table_of(each[1])):
            if table is None:
                continue
            places = [place for place, _ in group]
            begin, end = int(offsets[places[0] * b]), int(offsets[(places[-1] + 1) * b])
            is_cold = ~self._tables.rows.has_rows(self._tables.number(table), lookup.keys[begin:end]).numpy()
            for place in places:
                read = self._shown[lookup.features[place]]
                first, last = int(offsets[place * b]), int(offsets[(place + 1) * b])
                bad = np.flatnonzero(is_cold[first - begin : last - begin])
                bags = offsets[place * b : (place + 1) * b + 1]
                rows = np.unique(np.searchsorted(bags, bad + first, side="right") - 1) if len(bad) else bad
                together = read.keys_per_id // read.blocks
                cold_ids = len(bad) if together == 1 else len(np.unique(bad // together))
                _note(cold, read, (last - first) // together, cold_ids, rows)

    def _table_of(self, number: int) -> str | None:
        read = self._shown.get(number)
        return None if read is None else read.table.name

    def _note_products(self, view: PooledViews, ids: JaggedIds, cold: dict[str, ColdRows]) -> None:
        for read in view.features:
            of_feature = ids[read.feature.name]
            keys = read.encoder.encode(of_feature.values.numpy())
            known = self._tables.rows.has_rows(self._tables.number(read.table.name), torch.from_numpy(keys))
            is_cold = ~known.view(-1, read.keys_per_id).all(dim=1).numpy()
            rows = np.repeat(np.arange(ids.num_rows), of_feature.lengths.numpy())[is_cold]
            _note(cold, read, len(is_cold), len(rows), np.unique(rows))


def shown_readers(tables: LookupTables) -> list[TableFeature]:
    """What reads embeddings; of a feature that has first-order weights alone, what reads those."""
    found: dict[str, TableFeature] = {}
    for read in sorted(tables.features, key=lambda read: read.table.name.startswith(LINEAR_PREFIX)):
        found.setdefault(read.feature.name, read)
    return list(found.values())


def _note(cold: dict[str, ColdRows], read: TableFeature, ids: int, cold_ids: int, rows: Int64s) -> None:
    """Adds what is known of a feature's ids; the blocks of concatenated rows are those of the same ids."""
    before = cold.get(read.feature.name)
    if before is not None:
        cold_ids, rows = max(cold_ids, before.cold_ids), np.union1d(rows, before.rows)
    cold[read.feature.name] = ColdRows(read.table.name, ids, cold_ids, rows)


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

"""`KeyedIds`, `SumLookup`: the pooled lookup of views, for ids whose keys are made, without what a gradient would need.

The same sums as `embtables.lookup.request.pooled_request`, in fewer steps: a request has few rows, and what does not
depend on them is made once. Shape letters: B rows, n ids, T keys of each, D dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt

from embtables.lookup.views import Sums
from embtables.tables.served_tables import ServedTables
from embtables.tables.table_feature import TableFeature

Float32s = npt.NDArray[np.float32]
Int64s = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class KeyedIds:
    """The ids of one feature for B rows.

    Attributes:
        keys: (n * T,) int64.
        lengths: (B,) how many ids each row has; None: one each.
        weights: (n,) float32, or None for ones.
    """

    keys: Int64s
    lengths: Int64s | None = None
    weights: Float32s | None = None


class SumLookup:
    """One lookup of a view: sums of rows.

    Args:
        tables: that are looked up.
        sums: features of which none multiplies rows, and those beside them.

    Attributes:
        features: of the lookup.
        numbers: theirs.
    """

    def __init__(self, tables: ServedTables, sums: Sums) -> None:
        self.features, beside = sums
        self.numbers = frozenset(read.number for read in self.features)
        self._rows = tables.rows
        self._width = sum(read.table.dim * read.blocks for read in (*self.features, *beside))
        numbers = [read.number + block for read in self.features for block in range(read.blocks)]
        pairs = zip(self.features, beside, strict=True) if beside else ()
        self._beside = [other.number for read, other in pairs for _ in range(read.blocks)]
        self._numbers = np.array([*numbers, *self._beside], np.int32)
        self._is_single = all(read.keys_per_id == 1 for read in self.features)
        self._has_combined = any(read.combine == "mean" for read in self.features)
        groups = groupby(enumerate(self.features), key=lambda each: each[1].table.name)
        self._neighbours = [(tables.number(name), [place for place, _ in group]) for name, group in groups]

    def pooled(self, ids: Sequence[KeyedIds], b: int) -> Float32s:
        """(B, sum of D) of the features' columns and of those beside them.

        Args:
            ids: of each feature.
            b: B.

        Raises:
            DataError: a key is outside a fixed table.
        """
        out = np.empty((b, self._width), np.float32)
        if self._is_single and all(of.lengths is None for of in ids):
            keys = np.concatenate([of.keys for of in ids])
            offsets = np.arange(len(keys) + 1)
        else:
            keys, offsets = self._jagged(ids, b)
        weights = self._weights(ids, b, len(keys))
        if self._beside:
            keys = np.concatenate([keys, keys])
            offsets = np.concatenate([offsets, offsets[1:] + offsets[-1]])
            weights = None if weights is None else np.concatenate([weights, weights])
        self._rows.pooled_into(self._numbers, keys, offsets, weights, out)
        return out

    def _jagged(self, ids: Sequence[KeyedIds], b: int) -> tuple[Int64s, Int64s]:
        """Keys feature after feature, block after block, and where each row's begin."""
        keys, counts = [], []
        for read, of in zip(self.features, ids, strict=True):
            blocks, together = read.blocks, read.keys_per_id // read.blocks
            keys.append(of.keys.reshape(-1, blocks).T.ravel() if blocks > 1 else of.keys)
            lengths = np.ones(b, np.int64) if of.lengths is None else of.lengths
            counts += [lengths * together if together > 1 else lengths] * blocks
        offsets = np.zeros(len(counts) * b + 1, np.int64)
        np.cumsum(np.concatenate(counts), out=offsets[1:])
        return np.concatenate(keys), offsets

    def _weights(self, ids: Sequence[KeyedIds], b: int, size: int) -> Float32s | None:
        """(N,) the factor of each key's row, or None for ones."""
        if not self._has_combined and all(
            of.weights is None and (of.lengths is None or read.feature.pooling != "mean")
            for read, of in zip(self.features, ids, strict=True)
        ):
            return None
        weights, at = np.ones(size, np.float32), 0
        for read, of in zip(self.features, ids, strict=True):
            end = at + len(of.keys)
            factors = _factors(read, of, b)
            if factors is not None:
                weights[at:end] = np.tile(factors, read.blocks) if read.blocks > 1 else factors
            at = end
        return weights

    def cold(self, ids: Sequence[KeyedIds]) -> list[Mask]:
        """For each feature (n * T,) which keys read a cold row."""
        found: list[Mask] = [np.empty(0, np.bool_)] * len(ids)
        for table, places in self._neighbours:
            if len(places) == 1:
                found[places[0]] = self._rows.cold(table, ids[places[0]].keys)
                continue
            is_cold, at = self._rows.cold(table, np.concatenate([ids[place].keys for place in places])), 0
            for place in places:
                found[place] = is_cold[at : at + len(ids[place].keys)]
                at += len(ids[place].keys)
        return found


def _factors(read: TableFeature, of: KeyedIds, b: int) -> Float32s | None:
    """(n * T / blocks,) the factor of the row of each key of a block; None for ones."""
    together = read.keys_per_id // read.blocks
    factors: Float32s | None = None
    if read.combine == "mean" or (read.feature.pooling == "mean" and of.lengths is not None):
        lengths = np.ones(b, np.int64) if of.lengths is None else of.lengths
        each = 1.0 / np.maximum(lengths, 1) if read.feature.pooling == "mean" else np.ones(b)
        each = each / read.keys_per_id if read.combine == "mean" else each
        factors = np.repeat(each.astype(np.float32), lengths * together)
    if of.weights is None:
        return factors
    weights = np.repeat(of.weights, together) if together > 1 else of.weights
    return weights if factors is None else weights * factors

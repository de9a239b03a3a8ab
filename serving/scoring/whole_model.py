"""`WholeModelScorer`: scores of requests by the whole model, for models that are no dense net over pooled embeddings.

Each request's rows are made whole and go through the model in tiles of one size, the last one padded with its last
row. Shape letters: K candidates of a request.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from embtables.inputs.columns import Ids
from embtables.inputs.features import Block, make_batch
from embtables.models.scorer import Scorer
from embtables.serving.scoring.engines.tiles import TILE, padded
from embtables.serving.scoring.features.features_stage import Converted
from embtables.serving.scoring.features.levels import LevelRows
from embtables.serving.scoring.lookup.lookups import ColdRows, shown_readers
from embtables.serving.scoring.refused import refused
from embtables.serving.scoring.scores import Scores
from embtables.tables.table_feature import TableFeature

Float32s = npt.NDArray[np.float32]


class _LevelBlock:
    """The rows of a level, of which some can be taken."""

    def __init__(self, level: LevelRows) -> None:
        self.names, self.dense = tuple(level.ids), level.dense
        self.block = Block.of([of for of, _ in level.ids.values()], np.empty((level.n, 0), np.float32))


class WholeModelScorer:
    """Scores converted requests one after the other; used by any thread.

    Args:
        scorer: of the version.
    """

    name = "torch"

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self._names = [feature.name for feature in scorer.schema.features]
        self._readers = shown_readers(scorer.tables)

    def score(self, groups: Sequence[Converted]) -> tuple[list[list[Scores] | BaseException], dict[str, float]]:
        """The scores of each group's requests, or what it ends with; and microseconds by stage."""
        begin = time.perf_counter_ns()
        found: list[list[Scores] | BaseException] = []
        for group in groups:
            try:
                levels = [_LevelBlock(level) for level in (group.shared, group.own)]
                ends = np.cumsum(group.ks)
                found.append([self._scores(group, levels, place, int(end)) for place, end in enumerate(ends)])
            except Exception as error:
                found.append(refused(error, group.givens[0]))
        return found, {"dense": (time.perf_counter_ns() - begin) / 1e3}

    def _scores(self, group: Converted, levels: Sequence[_LevelBlock], place: int, end: int) -> Scores:
        """Of the request at a place, whose rows end at `end`."""
        k = group.givens[place].k
        block = self._whole(levels, [np.full(k, place), np.arange(end - k, end)])
        tiles = block.take(np.minimum(np.arange(padded(k)), k - 1))
        parts = [
            self._scorer.score(make_batch(self._names, [(tiles, start, start + TILE)])).numpy()
            for start in range(0, k, TILE)
        ]
        cold = {read.feature.name: self._cold(read, block) for read in self._readers}
        return Scores(np.concatenate(parts)[:k], cold, group.shared.ids)

    def _whole(self, levels: Sequence[_LevelBlock], rows: Sequence[npt.NDArray[np.int64]]) -> Block:
        """All features and dense columns of K rows, which are those of the levels at `rows`, (K,) each."""
        ids: dict[str, Ids] = {}
        dense = np.empty((len(rows[0]), len(self._scorer.schema.dense)), np.float32)
        for level, order in zip(levels, rows, strict=True):
            ids |= zip(level.names, level.block.take(order).ids, strict=True)
            for places, values in level.dense:
                dense[:, places] = values[order]
        return Block.of([ids[name] for name in self._names], dense)

    def _cold(self, read: TableFeature, block: Block) -> ColdRows:
        feature = read.feature.name
        ids = block.ids[self._names.index(feature)]
        known = self._scorer.tables.known(read.table.name, torch.tensor(ids.values), feature=feature).numpy()
        rows = np.repeat(np.arange(block.num_rows), ids.lengths_of(block.num_rows))[~known]
        return ColdRows(read.table.name, len(known), len(rows), np.unique(rows))

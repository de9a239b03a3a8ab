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
from embtables.serving.scoring.lookup.lookups import ColdRows, shown_readers
from embtables.serving.scoring.refused import refused
from embtables.serving.scoring.scores import Scores
from embtables.tables.table_feature import TableFeature

Float32s = npt.NDArray[np.float32]


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

    def score(self, requests: Sequence[Converted]) -> tuple[list[Scores | BaseException], dict[str, float]]:
        """The scores of each request, or what it ends with; and microseconds by stage."""
        begin = time.perf_counter_ns()
        found: list[Scores | BaseException] = []
        for request in requests:
            try:
                found.append(self._scores(request))
            except Exception as error:
                found.append(refused(error, request.given))
        return found, {"dense": (time.perf_counter_ns() - begin) / 1e3}

    def _scores(self, request: Converted) -> Scores:
        k = request.given.k
        block = self._whole(request)
        tiles = block.take(np.minimum(np.arange(padded(k)), k - 1))
        parts = [
            self._scorer.score(make_batch(self._names, [(tiles, start, start + TILE)])).numpy()
            for start in range(0, k, TILE)
        ]
        cold = {read.feature.name: self._cold(read, block) for read in self._readers}
        return Scores(np.concatenate(parts)[:k], cold, request.shared.ids)

    def _whole(self, request: Converted) -> Block:
        """All features and dense columns, for K rows."""
        k = request.given.k
        ids: dict[str, Ids] = {}
        dense = np.empty((k, len(self._scorer.schema.dense)), np.float32)
        for level in (request.shared, request.own):
            block = Block.of([of for of, _ in level.ids.values()], np.empty((level.n, 0), np.float32))
            if level is request.shared:
                block = block.take(np.zeros(k, np.int64))
            ids |= zip(level.ids, block.ids, strict=True)
            for places, values in level.dense:
                dense[:, places] = values
        return Block.of([ids[name] for name in self._names], dense)

    def _cold(self, read: TableFeature, block: Block) -> ColdRows:
        feature = read.feature.name
        ids = block.ids[self._names.index(feature)]
        known = self._scorer.tables.known(read.table.name, torch.tensor(ids.values), feature=feature).numpy()
        rows = np.repeat(np.arange(block.num_rows), ids.lengths_of(block.num_rows))[~known]
        return ColdRows(read.table.name, len(known), len(rows), np.unique(rows))

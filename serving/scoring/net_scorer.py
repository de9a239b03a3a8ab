"""`NetScorer`: scores of requests by a dense net over embeddings that are looked up level by level.

Shape letters: K candidates of a request, N rows of all requests, padded to tiles.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from embtables.models.dense_net import DenseNet
from embtables.serving.scoring.features_stage import Converted
from embtables.serving.scoring.levels import Levels
from embtables.serving.scoring.lookups import LevelLookup
from embtables.serving.scoring.refused import refused
from embtables.serving.scoring.scores import Scores
from embtables.serving.scoring.tiles import padded
from embtables.tables.served_tables import ServedTables

Float32s = npt.NDArray[np.float32]
_MAX_KEPT = 512


class Engine(Protocol):
    """Computes scores of rows; a row's score does not depend on the rows beside it."""

    @property
    def name(self) -> str:
        """What `/v1/model` calls it."""

    def scores(self, inputs: Sequence[Float32s]) -> Float32s:
        """Inputs of the dense net (N, width), N a multiple of the tile -> scores (N, n_labels)."""


class NetScorer:
    """Scores converted requests together; used by any thread.

    Args:
        net: the model's layers.
        tables: what its views look up.
        engine: computes the layers.
    """

    def __init__(self, net: DenseNet, tables: ServedTables, engine: Engine) -> None:
        self.net, self.engine = net, engine
        self._tables = tables
        self._lookups: dict[Levels, tuple[LevelLookup, LevelLookup, LevelLookup]] = {}

    def score(self, requests: Sequence[Converted]) -> tuple[list[Scores | BaseException], dict[str, float]]:
        """The scores of each request, or what it ends with; and microseconds by stage."""
        begin = time.perf_counter_ns()
        n = padded(sum(request.given.k for request in requests))
        inputs = [np.zeros((n, width), np.float32) for width in self.net.input_widths]
        found: list[Scores | BaseException] = []
        at = 0
        for request in requests:
            rows = slice(at, at + request.given.k)
            at = rows.stop
            try:
                found.append(self._filled(inputs, request, rows))
            except Exception as error:
                found.append(refused(error, request.given))
        looked_up = time.perf_counter_ns()
        scores = self.engine.scores(inputs) if n else np.empty((0, 0), np.float32)
        done = time.perf_counter_ns()
        at = 0
        for place, (request, of_request) in enumerate(zip(requests, found, strict=True)):
            if isinstance(of_request, Scores):
                own = scores[at : at + request.given.k]
                found[place] = Scores(own, of_request.cold, of_request.shared)
            at += request.given.k
        return found, {"lookup": (looked_up - begin) / 1e3, "dense": (done - looked_up) / 1e3}

    def _filled(self, inputs: Sequence[Float32s], request: Converted, rows: slice) -> Scores:
        """Fills a request's rows of the inputs; what is found of its ids."""
        levels = request.levels
        cold = {}
        if request.given.k:
            of_levels = (levels.shared, levels.kept, levels.own)
            blocks = (request.shared, request.kept, request.own)
            for level, block, lookup in zip(of_levels, blocks, self._lookups_of(levels), strict=True):
                cold |= lookup.fill(inputs, block, level.names, rows)
                if len(level.dense):
                    inputs[-1][rows, level.places] = block.dense
        return Scores(inputs[0][:0], cold, levels.shared.names)

    def _lookups_of(self, levels: Levels) -> tuple[LevelLookup, LevelLookup, LevelLookup]:
        found = self._lookups.get(levels)
        if found is None:
            shared, kept, own = (
                LevelLookup(self.net, self._tables, level.names) for level in (levels.shared, levels.kept, levels.own)
            )
            found = shared, kept, own
            if len(self._lookups) < _MAX_KEPT:
                self._lookups[levels] = found
        return found

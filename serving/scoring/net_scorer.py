"""`NetScorer`: scores of requests by a dense net over embeddings that are looked up level by level.

Shape letters: K candidates of a request, N rows of all requests, padded to tiles.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from embtables.models.dense_net import DenseNet
from embtables.serving.scoring.engines.engine import Engine, Float32s
from embtables.serving.scoring.features.features_stage import Converted
from embtables.serving.scoring.features.levels import LevelRows
from embtables.serving.scoring.lookup.lookups import ColdRows, LevelLookup
from embtables.serving.scoring.refused import refused
from embtables.serving.scoring.scores import Scores
from embtables.tables.served_tables import ServedTables

_MAX_KEPT = 512


class NetScorer:
    """Scores converted requests together; used by any thread.

    Args:
        net: the model's layers.
        tables: what its views look up.
        engine: computes the layers.
    """

    def __init__(self, net: DenseNet, tables: ServedTables, engine: Engine) -> None:
        self.net, self.tables, self.engine = net, tables, engine
        self._lookups: dict[tuple[str, ...], LevelLookup] = {}

    def score(self, requests: Sequence[Converted]) -> tuple[list[Scores | BaseException], dict[str, float]]:
        """The scores of each request, or what it ends with; and microseconds by stage."""
        begin = time.perf_counter_ns()
        inputs = self._empty(requests)
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
        scores = self.engine.scores(inputs) if requests else inputs[0][:0]
        done = time.perf_counter_ns()
        at = 0
        for place, (request, of_request) in enumerate(zip(requests, found, strict=True)):
            if isinstance(of_request, Scores):
                own = scores[at : at + request.given.k]
                found[place] = Scores(own, of_request.cold, of_request.shared)
            at += request.given.k
        return found, {"lookup": (looked_up - begin) / 1e3, "dense": (done - looked_up) / 1e3}

    def inputs(self, requests: Sequence[Converted]) -> list[Float32s]:
        """The inputs of the dense net (N, width) for requests, padded for the engine."""
        inputs, at = self._empty(requests), 0
        for request in requests:
            self._filled(inputs, request, slice(at, at + request.given.k))
            at += request.given.k
        return inputs

    def _empty(self, requests: Sequence[Converted]) -> list[Float32s]:
        n = self.engine.padded(sum(request.given.k for request in requests))
        return [np.zeros((n, width), np.float32) for width in self.net.input_widths]

    def _filled(self, inputs: Sequence[Float32s], request: Converted, rows: slice) -> Scores:
        """Fills a request's rows of the inputs; what is found of its ids."""
        cold: dict[str, ColdRows] = {}
        for level in (request.shared, request.own):
            cold |= self._lookup_of(level).fill(inputs, level, rows)
            for places, values in level.dense:
                inputs[-1][rows, places] = values
        return Scores(inputs[0][:0], cold, request.shared.ids)

    def _lookup_of(self, level: LevelRows) -> LevelLookup:
        names = tuple(level.ids)
        found = self._lookups.get(names)
        if found is None:
            found = LevelLookup(self.net, self.tables, names)
            if len(self._lookups) < _MAX_KEPT:  # which columns a request gives, its client decides
                self._lookups[names] = found
        return found

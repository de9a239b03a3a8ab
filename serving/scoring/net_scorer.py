"""`NetScorer`: scores of requests by a dense net over embeddings that are looked up level by level.

Shape letters: N rows of all requests, padded to tiles.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from embtables.models.dense_net import DenseNet
from embtables.serving.scoring.engines.engine import Engine, Float32s
from embtables.serving.scoring.features.features_stage import Converted
from embtables.serving.scoring.features.levels import LevelRows
from embtables.serving.scoring.lookup.lookups import LevelLookup
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

    def score(self, groups: Sequence[Converted]) -> tuple[list[list[Scores] | BaseException], dict[str, float]]:
        """The scores of each group's requests, or what it ends with; and microseconds by stage."""
        begin = time.perf_counter_ns()
        inputs = self._empty(groups)
        found: list[list[Scores] | BaseException] = []
        at = 0
        for group in groups:
            rows = slice(at, at + group.own.n)
            at = rows.stop
            try:
                found.append(self._filled(inputs, group, rows))
            except Exception as error:
                found.append(refused(error, group.givens[0]))
        looked_up = time.perf_counter_ns()
        scores = self.engine.scores(inputs) if groups else inputs[0][:0]
        done = time.perf_counter_ns()
        at = 0
        for group, of_group in zip(groups, found, strict=True):
            start, at = at, at + group.own.n
            if isinstance(of_group, BaseException):
                continue
            for place, given in enumerate(group.givens):
                of_group[place] = replace(of_group[place], scores=scores[start : start + given.k])
                start += given.k
        return found, {"lookup": (looked_up - begin) / 1e3, "dense": (done - looked_up) / 1e3}

    def inputs(self, groups: Sequence[Converted]) -> list[Float32s]:
        """The inputs of the dense net (N, width) for requests, padded for the engine."""
        inputs, at = self._empty(groups), 0
        for group in groups:
            self._filled(inputs, group, slice(at, at + group.own.n))
            at += group.own.n
        return inputs

    def _empty(self, groups: Sequence[Converted]) -> list[Float32s]:
        n = self.engine.padded(sum(group.own.n for group in groups))
        return [np.zeros((n, width), np.float32) for width in self.net.input_widths]

    def _filled(self, inputs: Sequence[Float32s], group: Converted, rows: slice) -> list[Scores]:
        """Fills the rows of a group of requests in the inputs; of each request what is found of its ids."""
        ks, ends = group.ks, np.arange(1, len(group.givens) + 1)
        shared = self._lookup_of(group.shared).fill(inputs, group.shared, rows, ends, ks)
        own = self._lookup_of(group.own).fill(inputs, group.own, rows, np.cumsum(ks))
        for level, times in ((group.shared, ks), (group.own, None)):
            for places, values in level.dense:
                repeated = values if times is None or len(values) == 1 else np.repeat(values, times, axis=0)
                inputs[-1][rows, places] = repeated
        nothing = inputs[0][:0]
        return [Scores(nothing, one | each, group.shared.ids) for one, each in zip(shared, own, strict=True)]

    def _lookup_of(self, level: LevelRows) -> LevelLookup:
        names = tuple(level.ids)
        found = self._lookups.get(names)
        if found is None:
            found = LevelLookup(self.net, self.tables, names)
            if len(self._lookups) < _MAX_KEPT:  # which columns a request gives, its client decides
                self._lookups[names] = found
        return found

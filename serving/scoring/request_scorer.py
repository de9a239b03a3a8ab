"""`RequestScorer`: what one version answers score requests with, made once when the version is loaded."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from embtables.errors import DataError
from embtables.inputs.features import Block, FeatureTransform, make_batch
from embtables.inputs.values import BadRowsError
from embtables.serving import wire
from embtables.serving.refusals import Refusal
from embtables.serving.scoring.column_rules import ColumnRules
from embtables.serving.scoring.describe import ModelDescription
from embtables.serving.scoring.embedding import Embedder
from embtables.serving.scoring.given import Given, given_in_json, given_in_table
from embtables.serving.scoring.side_tables import SideTables
from embtables.serving.scoring.whole_columns import WholeColumns, whole_columns
from embtables.serving.versions.served_version import ServedVersion

TILE = 64


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores (K, n_labels) of a request.

    Attributes:
        cold: which ids read a cold row.
        ids, cold_ids: how many, by table.
        missing: by side table the number of keys that it lacks.
        stages_us: microseconds by stage.
    """

    scores: npt.NDArray[np.float32]
    cold: wire.ColdIds
    ids: Mapping[str, int] = field(default_factory=dict)
    cold_ids: Mapping[str, int] = field(default_factory=dict)
    missing: Mapping[str, int] = field(default_factory=dict)
    stages_us: Mapping[str, float] = field(default_factory=dict)


class RequestScorer:
    """Scores of requests, by one version.

    Args:
        version: that is to answer.
        before: of the version before, from which what is the same is taken over.
    """

    def __init__(self, version: ServedVersion, before: RequestScorer | None = None) -> None:
        self.version = version
        self.embedder = Embedder(version.scorer)
        self.side_tables = SideTables(version.side_tables.values())
        self.rules = ColumnRules(version.content, self.side_tables)
        schema = version.content.trained
        self.labels = tuple(label.name or label.column for label in schema.labels)
        self._transform = FeatureTransform.for_scoring(schema, version.content.fitted)
        self.description = ModelDescription(version, self.rules, self.embedder, wire.EngineInfo("exact", "torch"))

    def warm(self) -> None:
        """Scores a made-up request, so that the first real one finds everything loaded."""

    def score_all(self, requests: Sequence[wire.ScoreRequest | pa.Table]) -> list[Scores | BaseException]:
        """The scores of each request, or what it ends with; one that fails does not touch the others."""
        found: list[Scores | BaseException] = []
        for request in requests:
            try:
                found.append(self.score(self.given(request)))
            except Exception as error:
                found.append(error)
        return found

    def given(self, request: wire.ScoreRequest | pa.Table) -> Given:
        """The columns of a request. Raises Refusal."""
        if isinstance(request, wire.ScoreRequest):
            return given_in_json(request, self.rules)
        return given_in_table(request, self.rules)

    def score(self, given: Given) -> Scores:
        """The scores of a request.

        Raises:
            Refusal: 422, a column is missing, or holds values without meaning.
        """
        if given.k == 0:
            return Scores(np.empty((0, len(self.labels)), np.float32), wire.ColdIds())
        begin = time.perf_counter_ns()
        whole = whole_columns(given, self.rules, self.side_tables)
        block = self._block(whole)
        converted = time.perf_counter_ns()
        scores = self._scores(block)
        done = time.perf_counter_ns()
        stages = {"features": (converted - begin) / 1e3, "dense": (done - converted) / 1e3}
        cold, ids, cold_ids = self._cold(whole, block)
        return Scores(scores, cold, ids, cold_ids, whole.missing, stages)

    def _block(self, whole: WholeColumns) -> Block:
        try:
            return self._transform.convert(whole.table())
        except BadRowsError as error:
            row = int(error.rows[0]) if len(error.rows) else None
            raise Refusal(422, error.message, whole.given.place(error.column, row)) from None
        except DataError as error:
            column = str(error.path.get("column", ""))
            raise Refusal(422, error.message, whole.given.place(column, None)) from None

    def _scores(self, block: Block) -> npt.NDArray[np.float32]:
        k = block.num_rows
        padded = block.take(np.minimum(np.arange(-(-k // TILE) * TILE), k - 1))
        parts = []
        for start in range(0, k, TILE):
            batch = make_batch(self._transform.names, [(padded, start, start + TILE)])
            parts.append(self.version.scorer.score(batch).numpy())
        return np.ascontiguousarray(np.concatenate(parts)[:k])

    def _cold(self, whole: WholeColumns, block: Block) -> tuple[wire.ColdIds, dict[str, int], dict[str, int]]:
        """Which ids read a cold row; how many were read and how many are cold, by table."""
        cold = wire.ColdIds()
        ids_of, cold_of = dict[str, int](), dict[str, int]()
        tables = self.version.scorer.tables
        by_name = dict(zip(self._transform.names, block.ids, strict=True))
        for read in self.embedder.readers.values():
            feature, ids = read.feature, by_name[read.feature.name]
            known = tables.known(read.table.name, torch.tensor(ids.values), feature=feature.name).numpy()
            ids_of[read.table.name] = ids_of.get(read.table.name, 0) + len(known)
            rows = np.repeat(np.arange(block.num_rows), ids.lengths_of(block.num_rows))[~known]
            if not len(rows):
                continue
            cold_of[read.table.name] = cold_of.get(read.table.name, 0) + len(rows)
            if all(name in whole.shared for name in feature.columns):
                cold.context.append(feature.name)
            else:
                cold.candidates[feature.name] = np.unique(rows).tolist()
        return cold, ids_of, cold_of

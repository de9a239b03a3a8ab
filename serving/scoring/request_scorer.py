"""`RequestScorer`: what one version answers score requests with, made once when the version is loaded."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embtables.errors import DataError
from embtables.inputs.features import Block, FeatureTransform, make_batch
from embtables.inputs.values import BadRowsError
from embtables.serving import wire
from embtables.serving.refusals import Refusal
from embtables.serving.scoring.column_rules import ColumnRules
from embtables.serving.scoring.given import Given, given_in_json, given_in_table
from embtables.serving.scoring.side_tables import SideTables
from embtables.serving.scoring.whole_columns import WholeColumns, whole_columns
from embtables.serving.versions.served_version import ServedVersion

TILE = 64


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores (K, n_labels) of a request.

    Attributes:
        missing: by side table the number of keys that it lacks.
        stages_us: microseconds by stage.
    """

    scores: npt.NDArray[np.float32]
    cold: wire.ColdIds
    missing: Mapping[str, int] = field(default_factory=dict)
    stages_us: Mapping[str, float] = field(default_factory=dict)


class RequestScorer:
    """Scores of requests, by one version.

    Args:
        version: that is to answer.
    """

    def __init__(self, version: ServedVersion) -> None:
        self.version = version
        self.side_tables = SideTables(version.side_tables.values())
        self.rules = ColumnRules(version.content, self.side_tables)
        schema = version.content.trained
        self.labels = tuple(label.name or label.column for label in schema.labels)
        self._transform = FeatureTransform.for_scoring(schema, version.content.fitted)

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
        return Scores(scores, self._cold(whole, block), whole.missing, stages)

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

    def _cold(self, whole: WholeColumns, block: Block) -> wire.ColdIds:
        cold = wire.ColdIds()
        tables = self.version.scorer.tables
        looked_up = {table.name for table in tables.configs}
        for feature, ids in zip(self.version.content.trained.features, block.ids, strict=True):
            if feature.table not in looked_up:
                continue
            known = tables.known(feature.table, ids.values, feature=feature.name).numpy()
            rows = np.repeat(np.arange(block.num_rows), ids.lengths_of(block.num_rows))[~known]
            if not len(rows):
                continue
            if all(name in whole.shared for name in feature.columns):
                cold.context.append(feature.name)
            else:
                cold.candidates[feature.name] = np.unique(rows).tolist()
        return cold

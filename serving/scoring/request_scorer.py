"""`RequestScorer`: what one version answers score requests with, made once when the version is loaded.

    requests --features stage--> two levels --lookups--> inputs of the dense net, rows of all requests one after the
    other --tiles--> scores --> an answer for each request

A model that is no dense net over pooled embeddings (sequences, code of its user) is asked with full rows, in the same
tiles. Shape letters: K candidates of a request, N rows of all requests.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from embtables.errors import ConfigError
from embtables.inputs.features import FeatureTransform
from embtables.models.dense_net import DenseNet
from embtables.models.scorer import Scorer
from embtables.serving import wire
from embtables.serving.scoring.column_rules import ColumnRules
from embtables.serving.scoring.describe import ModelDescription
from embtables.serving.scoring.embedding import Embedder
from embtables.serving.scoring.features_stage import Converted, FeaturesStage
from embtables.serving.scoring.given import Given, given_in_json, given_in_table
from embtables.serving.scoring.net_scorer import NetScorer
from embtables.serving.scoring.scores import Scores
from embtables.serving.scoring.side_tables import SideTables
from embtables.serving.scoring.tiles import Tiles
from embtables.serving.scoring.whole_model import WholeModelScorer
from embtables.serving.versions.served_version import ServedVersion
from embtables.tables.served_tables import ServedTables

Request = wire.ScoreRequest | pa.Table


@dataclass(frozen=True, slots=True)
class Answer:
    """The scores of a request.

    Attributes:
        missing: by side table the number of keys that it lacks.
        stages_us: microseconds by stage, of all requests that were scored together.
    """

    of: Scores
    missing: Mapping[str, int]
    stages_us: Mapping[str, float]


class RequestScorer:
    """Scores of requests, by one version; used by any thread.

    Args:
        version: that is to answer.
        before: of the version before, from which what is the same is taken over.
    """

    def __init__(self, version: ServedVersion, before: RequestScorer | None = None) -> None:
        self.version = version
        schema = version.content.trained
        self.labels = tuple(label.name or label.column for label in schema.labels)
        self.embedder = Embedder(version.scorer)
        tables = list(version.side_tables.values())
        self.rules = ColumnRules(version.content, SideTables(tables))
        transform = FeatureTransform.for_scoring(schema, version.content.fitted)
        self.stage = FeaturesStage(transform, self.rules, tables, None if before is None else before.stage)
        self._rows = _rows_scorer(version.scorer)
        self.description = ModelDescription(version, self.rules, self.embedder, wire.EngineInfo("exact", "torch"))

    def warm(self) -> None:
        """Scores a made-up request, so that the first real one finds everything loaded."""

    def given(self, request: Request) -> Given:
        """The columns of a request. Raises Refusal."""
        if isinstance(request, wire.ScoreRequest):
            return given_in_json(request, self.rules)
        return given_in_table(request, self.rules)

    def score_all(self, requests: Sequence[Request]) -> list[Answer | BaseException]:
        """The scores of each request, or what it ends with: one that fails does not touch the others."""
        begin = time.perf_counter_ns()
        converted: list[Converted | BaseException] = []
        for request in requests:
            try:
                converted.append(self.stage.convert(self.given(request)))
            except Exception as error:
                converted.append(error)
        good = [each for each in converted if isinstance(each, Converted)]
        features_us = (time.perf_counter_ns() - begin) / 1e3
        found, stages_us = self._rows.score(good)
        stages_us = {"features": features_us, **stages_us}
        of_good = iter(zip(good, found, strict=True))
        answers: list[Answer | BaseException] = []
        for each in converted:
            if isinstance(each, Converted):
                request_of, scores = next(of_good)
                is_scored = isinstance(scores, Scores)
                answers.append(Answer(scores, request_of.missing, stages_us) if is_scored else scores)
            else:
                answers.append(each)
        return answers


def _rows_scorer(scorer: Scorer) -> NetScorer | WholeModelScorer:
    """By the dense net alone, where the model is one."""
    try:
        net = DenseNet(scorer.model, len(scorer.schema.dense))
        net.try_out()
    except ConfigError:
        return WholeModelScorer(scorer)
    assert isinstance(scorer.tables, ServedTables)
    return NetScorer(net, scorer.tables, Tiles(net, scorer.task, autocast=scorer.autocast))

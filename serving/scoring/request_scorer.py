"""`RequestScorer`: what one version answers score requests with, made once when the version is loaded.

    requests --features stage--> two levels --lookups--> inputs of the dense net, rows of all requests one after the
    other --tiles--> scores --> an answer for each request

A model that is no dense net over pooled embeddings (sequences, code of its user) is asked with full rows, in the same
tiles. Shape letters: K candidates of a request, N rows of all requests.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from embtables.errors import ConfigError, DataError
from embtables.inputs.features import FeatureTransform
from embtables.inputs.times import as_microseconds
from embtables.inputs.values import one_array
from embtables.models.dense_net import DenseNet
from embtables.models.scorer import Scorer
from embtables.serving import wire
from embtables.serving.rows_request import RowsRequest
from embtables.serving.running.log_fold import LogFold
from embtables.serving.scoring.columns.column_rules import ColumnRules
from embtables.serving.scoring.columns.given import Given, given_in_json, given_in_rows, given_in_table
from embtables.serving.scoring.describe import ModelDescription
from embtables.serving.scoring.engines.choose import GREATEST_ERROR, Choice, fastest, renewed
from embtables.serving.scoring.engines.tiles import TILE, Tiles
from embtables.serving.scoring.features.features_stage import Converted, FeaturesStage
from embtables.serving.scoring.lookup.embedding import Embedder
from embtables.serving.scoring.net_scorer import NetScorer
from embtables.serving.scoring.running_columns import RunningColumns
from embtables.serving.scoring.scores import Scores
from embtables.serving.scoring.side_tables import SideTables
from embtables.serving.scoring.warm import MADE_UP_CANDIDATES, made_up_request
from embtables.serving.scoring.whole_columns import whole_columns
from embtables.serving.scoring.whole_model import WholeModelScorer
from embtables.serving.service import Request, Served
from embtables.serving.versions.served_version import ServedVersion
from embtables.tables.served_tables import ServedTables


@dataclass(frozen=True, slots=True)
class Answer:
    """The scores of a request.

    Attributes:
        given: the request's columns as they came; None: it has no candidates.
        missing: by side table the number of keys that it lacks.
        stages_us: microseconds by stage, of all requests that were scored together.
    """

    given: Given | None
    of: Scores
    missing: Mapping[str, int]
    stages_us: Mapping[str, float]

    @property
    def scores(self) -> npt.NDArray[np.float32]:
        """(K, n_labels)."""
        return self.of.scores


class RequestScorer:
    """Scores of requests, by one version; used by any thread.

    Args:
        version: that is to answer.
        before: of the version before, from which what is the same is taken over.
        fold: of the server's event log, from which running columns are filled; None: requests give them.
        mode: exact, or the fastest engine.
        greatest_error: of a score, for that engine.

    Attributes:
        engine: what computes the scores.
    """

    def __init__(
        self,
        version: ServedVersion,
        before: RequestScorer | None = None,
        *,
        fold: LogFold | None = None,
        mode: Literal["exact", "fast"] = "exact",
        greatest_error: float = GREATEST_ERROR,
    ) -> None:
        self.version = version
        self._mode, self._greatest_error = mode, greatest_error
        schema = version.content.trained
        self.labels = tuple(label.name or label.column for label in schema.labels)
        self.embedder = Embedder(version.scorer)
        tables = list(version.side_tables.values())
        self.side_tables = SideTables(tables)
        self.rules = ColumnRules(version.content, self.side_tables)
        self._running: RunningColumns | None = None
        if fold is not None:
            self._running = RunningColumns(fold, self.rules, self.side_tables, schema.event_time)
        transform = FeatureTransform.for_scoring(schema, version.content.fitted)
        self._rows = _rows_scorer(version.scorer)
        encoders = {}
        # Beside a product, all features of a lookup are looked up by ids, and not by keys that were made beforehand.
        if isinstance(self._rows, NetScorer) and all(r.combine != "product" for r in version.scorer.tables.features):
            encoders = {name: read.encoder for name, read in self.embedder.readers.items()}
        old: FeaturesStage | None = None if before is None else before.stage
        self.stage: FeaturesStage = FeaturesStage(transform, self.rules, tables, encoders, old)
        self.description = ModelDescription(version, self.rules, self.embedder)
        self.engine = wire.EngineInfo(mode, WholeModelScorer.name)
        if isinstance(self._rows, NetScorer):
            self.engine = wire.EngineInfo("exact", self._rows.engine.name)
        self.choice: Choice | None = None  # of `fast`
        self._before = before
        self._versions: wire.Versions | None = None

    def warm(self, recorded: Sequence[Request] = ()) -> None:
        """Scores requests, so that the first real one finds everything loaded; of `fast`, chooses the engine by them.

        Args:
            recorded: requests of a log; those that this version cannot answer are left out. Besides them, or without
                any, there is a made-up one.
        """
        kept = self.stage.candidates
        ids = [] if kept is None or kept.row_of is None else list(islice(kept.row_of, MADE_UP_CANDIDATES))
        made_up = made_up_request(self.rules, self.description.columns, ids)
        requests = [*recorded, made_up]
        found = self.score_all(requests)
        good = [request for request, answer in zip(requests, found, strict=True) if isinstance(answer, Answer)]
        before, self._before = self._before, None
        if not isinstance(self._rows, NetScorer):
            return
        if self._mode == "exact" and good:
            return
        net, task = self._rows.net, self.version.scorer.task
        if good:
            inputs = self._rows.inputs([self.stage.convert(self.given(request)) for request in good])
        else:
            rng = np.random.default_rng(0)
            inputs = [rng.normal(size=(TILE, width)).astype(np.float32) for width in net.input_widths]
        if self._mode == "exact":
            self._rows.engine.scores(inputs)
            return
        autocast = self.version.scorer.autocast
        choose: dict[str, Any] = {"autocast": autocast, "greatest_error": self._greatest_error}
        chosen = None if before is None else before.choice
        if chosen is None:
            self.choice = fastest(net, task, inputs, **choose)
        else:
            self.choice = renewed(chosen, net, task, inputs, **choose)
        self._rows = NetScorer(net, self._rows.tables, self.choice.engine)
        self.engine = self.choice.info

    def versions(self) -> wire.Versions:
        """Of what is looked up from now on: this version's dense weights; its rows, or those of one after it."""
        rows, known = self.version.row_version, self._versions
        if known is None or known.rows != rows:
            self._versions = known = wire.Versions(self.version.name, rows)
        return known

    def given(self, request: Request) -> Given:
        """The columns of a request, with running ones as they are now. Raises Refusal."""
        if isinstance(request, RowsRequest):
            given = given_in_rows(request, self.rules)
        elif isinstance(request, wire.ScoreRequest):
            given = given_in_json(request, self.rules)
        else:
            given = given_in_table(request, self.rules)
        return given if self._running is None else self._running.filled(given)

    @property
    def fills(self) -> bool:
        """Whether requests are given columns that depend on when they are asked."""
        return self._running is not None

    def served(self, given: Given) -> Served:
        """What was read of a request that was scored, as it was then."""
        columns = whole_columns(given, self.rules, self.side_tables).table()
        event_time, times = self.version.content.trained.event_time, None
        if event_time is not None and event_time.column in columns.column_names:
            with suppress(DataError):  # a null, which scoring may have had no use for
                times = as_microseconds(event_time, one_array(columns.column(event_time.column)))
        return Served(columns, np.full(given.k, given.at_us) if times is None else times)

    def score_all(self, requests: Sequence[Request]) -> list[Answer | BaseException]:
        """The scores of each request, or what it ends with: one that fails does not touch the others."""
        begin = time.perf_counter_ns()
        answers: dict[int, Answer | BaseException] = {}
        givens: list[tuple[int, Given]] = []
        for place, request in enumerate(requests):
            try:
                given = self.given(request)
            except Exception as error:
                answers[place] = error
                continue
            if given.k:
                givens.append((place, given))
            else:
                answers[place] = self._nothing()
        found, stages_us = self._scored([given for _, given in givens], begin)
        for (place, given), of_request in zip(givens, found, strict=True):
            if isinstance(of_request, BaseException):
                answers[place] = of_request
            else:
                answers[place] = Answer(given, *of_request, stages_us)
        return [answers[place] for place in range(len(requests))]

    def _scored(
        self, givens: Sequence[Given], begin: int
    ) -> tuple[list[tuple[Scores, Mapping[str, int]] | BaseException], dict[str, float]]:
        """Of each request its scores and how many keys side tables lack, or what it ends with."""
        found: dict[int, tuple[Scores, Mapping[str, int]] | BaseException] = {}
        groups: list[tuple[Converted, list[int]]] = []
        for converted, places in self.stage.convert_all(givens):
            if isinstance(converted, Converted):
                groups.append((converted, places))
            else:
                found[places[0]] = converted
        features_us = (time.perf_counter_ns() - begin) / 1e3
        scored, stages_us = self._rows.score([converted for converted, _ in groups])
        for (converted, places), of_group in zip(groups, scored, strict=True):
            if isinstance(of_group, list):
                found |= zip(places, zip(of_group, converted.missing, strict=True), strict=True)
            elif len(places) == 1:
                found[places[0]] = of_group
            else:  # one of them has a fault, which is its own
                for place in places:
                    (found[place],), _ = self._scored([givens[place]], begin)
        return [found[place] for place in range(len(givens))], {"features": features_us, **stages_us}

    def _nothing(self) -> Answer:
        """The answer to a request without candidates."""
        return Answer(None, Scores(np.empty((0, len(self.labels)), np.float32)), {}, {})


def _rows_scorer(scorer: Scorer) -> NetScorer | WholeModelScorer:
    """By the dense net alone, where the model is one."""
    try:
        net = DenseNet(scorer.model, len(scorer.schema.dense))
        net.try_out()
    except ConfigError:
        return WholeModelScorer(scorer)
    assert isinstance(scorer.tables, ServedTables)
    return NetScorer(net, scorer.tables, Tiles(net, scorer.task, autocast=scorer.autocast))

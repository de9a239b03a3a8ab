"""`explain`: each part against the model itself, with the rows of that feature read cold in another way."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from embtables.serving import wire
from embtables.serving.refusals import Refusal
from embtables.serving.scoring.request_scorer import RequestScorer
from embtables.serving.trust.explain import explain
from tests.serving.scoring.served_for_tests import item_name, served_version, side_tables

VERSIONS = wire.Versions("resume-6", "resume-6")
CONTEXT: dict[str, Any] = {"user": 7, "shop": 3, "near": [1, 2], "near_weight": [0.5, 1.0], "distance": 2.5}
TIME = {"time": "1970-03-01T05:00:00"}


@pytest.fixture(scope="module", params=["dcnv2", "deepfm"])
def scorer(request: pytest.FixtureRequest, run_of: Callable[[str], Path]) -> RequestScorer:
    return RequestScorer(served_version(run_of(request.param), side_tables(), "item"))


def asked(scorer: RequestScorer, **changes: Any) -> wire.ExplainAnswer:
    return explain(scorer, wire.ScoreRequest(CONTEXT | TIME | changes, [item_name(3)]), VERSIONS)


def logit(scorer: RequestScorer, **changes: Any) -> float:
    (found,) = scorer.score_all([wire.ScoreRequest(CONTEXT | TIME | changes, [{"item": item_name(3)}])])
    assert not isinstance(found, BaseException), found
    score = float(found.of.scores[0, 0])
    return math.log(score / (1 - score))


def test_it_has_the_score_that_is_served(scorer: RequestScorer) -> None:
    found = asked(scorer)
    (label,) = scorer.labels
    assert found.logits[label] == pytest.approx(logit(scorer), abs=1e-3)
    assert found.scores[label] == pytest.approx(1 / (1 + math.exp(-found.logits[label])), abs=1e-6)
    assert found.versions == VERSIONS
    schema = scorer.version.content.trained
    assert [part.feature for part in found.features] == [
        *(feature.name for feature in schema.features),
        *(dense.column for dense in schema.dense),
    ]


def test_a_contribution_is_the_logit_less_that_of_an_unknown_id(scorer: RequestScorer) -> None:
    """An id that training has never seen reads the cold row, too."""
    (label,) = scorer.labels
    parts = {part.feature: part for part in asked(scorer).features}
    shop = parts["shop"]
    assert shop.without == "cold"
    assert shop.contribution[label] == pytest.approx(logit(scorer) - logit(scorer, shop=987_654_321), abs=1e-3)
    assert abs(shop.contribution[label]) > 4e-3
    near = parts["near"]
    unknown = logit(scorer, near=[987_654_321, 987_654_321])
    assert near.contribution[label] == pytest.approx(logit(scorer) - unknown, abs=1e-3)


def test_of_a_fixed_table_the_ids_are_left_out(scorer: RequestScorer) -> None:
    (label,) = scorer.labels
    (part,) = [part for part in asked(scorer).features if part.feature == "user"]
    assert part.without == "absent"
    assert abs(part.contribution[label]) > 4e-3
    assert all(row.age is None and not row.is_cold for row in part.rows)


def test_rows_say_key_age_and_norm(scorer: RequestScorer) -> None:
    tables = scorer.version.scorer.tables
    parts = {part.feature: part for part in asked(scorer).features}
    (row,) = parts["item"].rows
    (vector,), _, _ = scorer.embedder.of_feature("item", [item_name(3)])
    assert row.norm == pytest.approx(float(np.linalg.norm(vector)), rel=1e-6)
    assert not row.is_cold
    clock, seen = tables.now("item"), tables.seen("item", torch.tensor([row.key]))
    assert row.age == clock - int(seen[0])
    assert 0 <= row.age <= 400 * 86_400
    (cold,) = [part for part in asked(scorer, shop=987_654_321).features if part.feature == "shop"]
    assert [(each.is_cold, each.age) for each in cold.rows] == [(True, None)]
    (label,) = scorer.labels
    assert cold.contribution[label] == 0.0


def test_a_dense_column_at_zero(scorer: RequestScorer) -> None:
    (label,) = scorer.labels
    (age,) = [part for part in asked(scorer, age=41.0).features if part.feature == "age"]
    assert (age.without, age.value, age.rows) == ("zero", 41.0, [])
    assert age.contribution[label] == pytest.approx(logit(scorer, age=41.0) - logit(scorer, age=0.0), abs=1e-3)


@pytest.mark.parametrize("number", [0, 2])
def test_one_candidate_at_a_time(scorer: RequestScorer, number: int) -> None:
    with pytest.raises(Refusal, match=f"one candidate is explained at a time, received {number}") as caught:
        explain(scorer, wire.ScoreRequest(CONTEXT, [item_name(n) for n in range(number)]), VERSIONS)
    assert (caught.value.status, caught.value.field) == (422, "candidates")


def test_what_cannot_be_scored_is_refused_as_in_scoring(scorer: RequestScorer) -> None:
    with pytest.raises(Refusal, match="is missing") as caught:
        explain(scorer, wire.ScoreRequest({"user": 7}, [{"item": item_name(1), "shop": 1, "near": []}]), VERSIONS)
    assert caught.value.status == 422

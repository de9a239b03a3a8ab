"""A server's fast way and the features stage of training read the same bits; each change of an id or a row is seen."""

from __future__ import annotations

from typing import Any

import pytest

from embtables.serving import wire
from embtables.serving.scoring.request_scorer import RequestScorer
from embtables.serving.trust.columns import block_of
from embtables.serving.trust.fingerprints import expected_fingerprints, served_fingerprints
from embtables.serving.versions.served_version import ServedVersion
from tests.serving.scoring.served_for_tests import item_name

CONTEXT: dict[str, Any] = {
    "user": 7,
    "shop": 3,
    "near": [1, 2],
    "near_weight": [0.5, 1.0],
    "distance": 2.5,
    "time": "1970-03-01T05:00:00",
}


@pytest.fixture(scope="module")
def scorer(zoo: ServedVersion) -> RequestScorer:
    return RequestScorer(zoo)


@pytest.mark.parametrize(
    "candidates",
    [
        [item_name(3), item_name(8)],  # by id alone: the server has their features ready
        [item_name(3), "no such item"],
        [{"item": item_name(3), "price": 2.0}, {"item": item_name(8), "price": None}],
        [{"item": item_name(3), "title": "a red cup"}],
    ],
)
def test_both_ways_read_the_same(scorer: RequestScorer, candidates: list[Any]) -> None:
    request = wire.ScoreRequest(CONTEXT, candidates)
    served = served_fingerprints(scorer, request)
    assert served == expected_fingerprints(scorer, block_of(scorer, request))
    schema = scorer.version.content.trained
    assert list(served) == [
        *(feature.name for feature in schema.features),
        *(f"dense/{dense.column}" for dense in schema.dense),
    ]


@pytest.mark.parametrize(
    ("change", "features"),
    [
        ({"shop": 4}, {"shop"}),
        ({"near": [2, 1]}, {"near"}),
        ({"near_weight": [0.5, 0.75]}, {"near"}),
        ({"age": 20.0}, {"dense/age"}),
        ({"user": 8}, {"user", "past", "user_item", "user_past", "dense/age", "dense/bought"}),
    ],
)
def test_a_change_is_seen_where_it_is(scorer: RequestScorer, change: dict[str, Any], features: set[str]) -> None:
    one = served_fingerprints(scorer, wire.ScoreRequest(CONTEXT, [item_name(3)]))
    other = served_fingerprints(scorer, wire.ScoreRequest(CONTEXT | change, [item_name(3)]))
    changed = {name for name in one if one[name] != other[name]}
    assert changed <= features
    assert changed

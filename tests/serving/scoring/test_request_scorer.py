"""Scores of requests are those of whole rows, whatever the request leaves to side tables and whoever asks beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embtables.serving import wire
from embtables.serving.refusals import Refusal
from embtables.serving.scoring.request_scorer import Answer, Request, RequestScorer
from embtables.serving.versions.served_version import ServedVersion
from embtables.serving.versions.side_tables.side_table import PublishedSideTable
from tests.serving.scoring.oracle import cold_of, full_rows, scores_of
from tests.serving.scoring.served_for_tests import (
    ITEMS,
    MODELS,
    USERS,
    item_name,
    items_table,
    rows_table,
    served_version,
    side_table,
    side_tables,
)

CONTEXT: dict[str, Any] = {
    "user": 7,
    "shop": 3,
    "near": [1, 2, 8],
    "near_weight": [0.5, 1, 0.25],
    "distance": 2.5,
    "time": "1970-06-01T07:30:00Z",
}


@pytest.fixture(scope="module")
def scorer(zoo: ServedVersion) -> RequestScorer:
    return RequestScorer(zoo)


def answer(scorer: RequestScorer, request: Request, *others: Request) -> Answer:
    found = scorer.score_all([*others, request])[-1]
    if isinstance(found, BaseException):
        raise found
    return found


def check(scorer: RequestScorer, request: Request) -> None:
    found, rows = answer(scorer, request), full_rows(scorer.version, request)
    assert found.of.scores.shape == (rows.num_rows, 1)
    assert np.abs(found.of.scores - scores_of(scorer.version, rows)).max() <= 1e-6
    cold = found.of.cold_ids()
    by_feature = {name: list(range(rows.num_rows)) for name in cold.context} | cold.candidates
    assert by_feature == cold_of(scorer.version, rows)
    ids, cold_ids = found.of.counts()
    assert all(cold_ids[table] <= ids[table] for table in cold_ids)


def full_row(table: pa.Table, row: int) -> dict[str, Any]:
    """A row of a log as JSON has it."""
    found = {name: table.column(name)[row].as_py() for name in table.column_names if name != "click"}
    return found | {"time": found["time"].isoformat()}


@pytest.mark.parametrize("model", MODELS)
def test_scores_are_those_of_whole_rows(run_of: Callable[[str], Path], model: str) -> None:
    scorer = RequestScorer(served_version(run_of(model), side_tables(), "item"))
    names = [item_name(n) for n in range(0, ITEMS, 2)]
    log = rows_table(150, seed=9)
    requests: list[Request] = [
        wire.ScoreRequest(context=CONTEXT, candidates=names),
        wire.ScoreRequest(context=CONTEXT, candidates=[*names * 3, "no such item", item_name(3)]),
        wire.ScoreRequest(context={**CONTEXT, "user": 10**12}, candidates=["none", "of", "these"]),
        wire.ScoreRequest(context=CONTEXT, candidates=[{"item": name} for name in names]),
        wire.ScoreRequest(context=CONTEXT, candidates=[{"item": name, "price": 2} for name in names]),
        wire.ScoreRequest(
            context=CONTEXT,
            candidates=[{"item": "item-3"}, {"item": "item-4", "title": "red lamp"}, {"item": "x", "sold": 1.5}],
        ),
        wire.ScoreRequest(context={**CONTEXT, "title": "blue", "past": ["item-1"], "age": 5}, candidates=names),
        wire.ScoreRequest(context={**CONTEXT, "shop": None, "near": None, "near_weight": None}, candidates=names[:1]),
        wire.ScoreRequest(rows=[full_row(log, row) for row in range(70)]),
        wire.ScoreRequest(rows=[{"item": "item-3", **CONTEXT}, {"item": "item-5", **CONTEXT, "user": 8}]),
        wire.ScoreRequest(
            context={k: v for k, v in CONTEXT.items() if k != "user"},
            candidates=[{"item": name, "user": user} for user, name in enumerate(names)],
        ),
        log,
        log.select(["user", "item", "shop", "near", "near_weight", "distance", "time"]),
    ]
    for request in requests:
        check(scorer, request)
    for one, other in zip(scorer.score_all(requests), requests, strict=True):
        assert isinstance(one, Answer)
        assert one.of.scores.tobytes() == answer(scorer, other).of.scores.tobytes()


IDS = st.one_of(st.integers(0, ITEMS - 1).map(item_name), st.text(max_size=4))
REQUESTS = st.builds(
    wire.ScoreRequest,
    context=st.fixed_dictionaries(
        {**{name: st.just(value) for name, value in CONTEXT.items()}, "user": st.integers(-5, USERS + 5)}
    ),
    candidates=st.lists(IDS, min_size=1, max_size=150),
)


@settings(max_examples=60)
@given(request=REQUESTS, others=st.lists(REQUESTS, max_size=4), place=st.integers(0, 4))
def test_a_score_does_not_depend_on_company(
    scorer: RequestScorer, request: wire.ScoreRequest, others: list[wire.ScoreRequest], place: int
) -> None:
    alone = answer(scorer, request).of.scores
    mixed = [*others[:place], request, *others[place:]]
    found = scorer.score_all(mixed)[min(place, len(others))]
    assert isinstance(found, Answer)
    assert found.of.scores.tobytes() == alone.tobytes()
    assert request.candidates is not None
    for row in {0, len(request.candidates) - 1}:
        single = wire.ScoreRequest(context=request.context, candidates=[request.candidates[row]])
        assert answer(scorer, single).of.scores.tobytes() == alone[row : row + 1].tobytes()


def test_the_same_request_in_json_and_arrow_has_the_same_bits(scorer: RequestScorer) -> None:
    log = rows_table(90, seed=4)
    json = answer(scorer, wire.ScoreRequest(rows=[full_row(log, row) for row in range(90)]))
    assert json.of.scores.tobytes() == answer(scorer, log).of.scores.tobytes()


REFUSED: list[tuple[dict[str, Any], str | None, str]] = [
    ({"context": CONTEXT}, "candidates", "give candidates"),
    ({"rows": [], "candidates": []}, "rows", "not both"),
    ({"context": {**CONTEXT, "usr": 1}, "candidates": []}, "context.usr", "did you mean user"),
    ({"context": CONTEXT, "candidates": [{"itm": 1}]}, "candidates.0.itm", "did you mean item"),
    ({"context": CONTEXT, "candidates": ["a", {"item": "b"}]}, "candidates.1", "is an object"),
    ({"context": CONTEXT, "candidates": [{"item": "b"}, "a"]}, "candidates.1", "or an id where others"),
    ({"context": CONTEXT, "candidates": [{"item": "b", "user": 1}]}, "candidates.0.user", "in the context, too"),
    ({"context": {**CONTEXT, "item": "x"}, "candidates": ["a"]}, "context.item", "leave 'item' out"),
    ({"context": CONTEXT, "candidates": ["a", 3]}, "candidates.1", "one type"),
    ({"context": CONTEXT, "candidates": [3]}, "item", "looked up by strings"),
    ({"context": {**CONTEXT, "user": 7.0}, "candidates": ["a"]}, "context.user", "cannot be"),
    ({"context": {**CONTEXT, "user": True}, "candidates": [{"item": "a"}, {"item": 1}]}, "candidates.1.item", "one"),
    ({"context": {**CONTEXT, "user": 2**64}, "candidates": ["a"]}, "context.user", "64 bits"),
    ({"context": {**CONTEXT, "distance": "far"}, "candidates": ["a"]}, "context.distance", "number"),
    ({"context": {**CONTEXT, "distance": {}}, "candidates": ["a"]}, "context.distance", "a column holds"),
    ({"context": {**CONTEXT, "near": [[1]]}, "candidates": ["a"]}, "context.near", "lists within"),
    ({"context": {**CONTEXT, "near": [1, "a"]}, "candidates": ["a"]}, "context.near", "one type"),
    ({"context": {**CONTEXT, "near": [1]}, "candidates": ["a"]}, "context.near_weight", "3 weights for 1"),
    ({"context": {**CONTEXT, "time": 12}, "candidates": ["a"]}, "context.time", "a string such as"),
    ({"context": {**CONTEXT, "time": "tomorrow"}, "candidates": ["a"]}, "context.time", "a time is like"),
    ({"context": {"user": 7}, "candidates": ["a"]}, None, "is missing"),
    ({"context": {k: v for k, v in CONTEXT.items() if k != "user"}, "candidates": ["a"]}, "user", "is missing"),
    ({"context": CONTEXT, "candidates": [{"item": "a", "price": 1}, {"item": "a", "price": "x"}]}, None, "one type"),
    ({"context": CONTEXT, "candidates": [{"item": "a"}, {"item": "b", "price": -1}]}, "candidates.1.price", "log1p"),
    ({"context": CONTEXT, "candidates": [{"item": "a"}, {"title": "b"}]}, "candidates.1.item", "lacks 'item'"),
    ({"rows": [{**CONTEXT, "item": "a"}, {"item": "a"}]}, None, "lacks"),
]


@pytest.mark.parametrize(("request_of", "field", "said"), REFUSED)
def test_what_is_wrong_is_named(
    scorer: RequestScorer, request_of: dict[str, Any], field: str | None, said: str
) -> None:
    good = wire.ScoreRequest(context=CONTEXT, candidates=["item-1"])
    bad = wire.ScoreRequest(**request_of)
    found = scorer.score_all([good, bad, good])
    refusal = found[1]
    assert isinstance(refusal, Refusal), refusal
    assert refusal.status == 422
    assert said in refusal.reason
    assert field is None or refusal.field == field, refusal.field
    assert isinstance(found[0], Answer)
    assert isinstance(found[2], Answer)
    assert found[0].of.scores.tobytes() == found[2].of.scores.tobytes() == answer(scorer, good).of.scores.tobytes()


def test_ids_of_another_kind_than_in_training_are_refused(zoo: ServedVersion) -> None:
    kinds = {"user": "integers", "item": "strings", "shop": "integers"}
    scorer = RequestScorer(replace(zoo, content=zoo.content.model_copy(update={"id_kinds": kinds})))
    good = wire.ScoreRequest(context=CONTEXT, candidates=["item-1"])
    wrong = {
        "context.shop": wire.ScoreRequest(context={**CONTEXT, "shop": "3"}, candidates=["item-1"]),
        "candidates.0.item": wire.ScoreRequest(context=CONTEXT, candidates=[{"item": 1}]),
        "rows.0.shop": rows_table(3).set_column(2, "shop", pa.array(["1", "2", "3"])),
    }
    for field, request in wrong.items():
        found = scorer.score_all([good, request])
        assert isinstance(found[0], Answer)
        assert isinstance(found[1], Refusal)
        assert (found[1].status, found[1].field) == (422, field)
        assert "in training" in found[1].reason
    assert {column.name: column.kind for column in scorer.description.columns}["shop"] == "integer"


def test_a_side_table_behind_another_is_read_again_when_it_changes(run_of: Callable[[str], Path]) -> None:
    _, users, pairs = side_tables()
    titled = side_table(
        "items", ("item",), items_table().drop_columns(["price"]), "defaults", {"title": "box", "sold": 3.0}
    )
    titles = sorted(set(items_table().column("title").drop_null().to_pylist()))

    def with_prices(factor: float) -> ServedVersion:
        prices = pa.table({"title": titles, "price": [factor * (1.0 + place) for place in range(len(titles))]})
        priced = side_table("prices", ("title",), prices, "null")
        priced = PublishedSideTable(priced.of, f"prices times {factor}", priced.table)
        return served_version(run_of("dcnv2"), [titled, priced, users, pairs], "item")

    request = wire.ScoreRequest(context=CONTEXT, candidates=[item_name(n) for n in range(ITEMS)])
    before, version = RequestScorer(with_prices(1.0)), with_prices(50.0)
    after, fresh = RequestScorer(version, before), RequestScorer(version)
    assert answer(after, request).of.scores.tobytes() == answer(fresh, request).of.scores.tobytes()
    assert answer(after, request).of.scores.tobytes() != answer(before, request).of.scores.tobytes()

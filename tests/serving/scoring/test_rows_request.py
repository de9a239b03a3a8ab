"""Requests whose rows are read as columns natively: the same columns as by the slower way, or none of them; requests
that are converted together: the same scores as alone, and each its own fault.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embtables.serving import wire
from embtables.serving.refusals import Refusal
from embtables.serving.rows_request import RowsRequest, read_rows_request
from embtables.serving.scoring.columns.given import Given, given_in_json, given_in_rows
from embtables.serving.scoring.request_scorer import Answer, RequestScorer
from embtables.serving.versions.served_version import ServedVersion
from tests.serving.scoring.served_for_tests import item_name
from tests.serving.scoring.test_request_scorer import CONTEXT

INTEGERS = st.integers(-(2**70), 2**70) | st.integers(-(2**63), 2**63 - 1) | st.integers(-9, 9)
FLOATS = st.floats(allow_nan=False, allow_infinity=False) | st.floats(-100, 100, width=32)
TEXTS = st.text(max_size=8) | st.text('aé\U0001f600"\\/\x00\n', max_size=4)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "integers": INTEGERS,
    "floats": FLOATS,
    "numbers": INTEGERS | FLOATS,
    "texts": TEXTS,
    "nullable": st.none() | TEXTS,
    "nulls": st.none(),
    "other": st.none() | st.booleans() | INTEGERS | FLOATS | TEXTS | st.lists(INTEGERS, max_size=2),
}
# Columns that requests of the version have: ids, numbers, times, and one that it does not know.
NAMES = st.sampled_from(["user", "item", "shop", "price", "sold", "distance", "time", "age", "title", "é", "a\\b"])


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Requests as clients write them: mostly rows of equal names."""
    columns = {name: draw(st.sampled_from(sorted(VALUES))) for name in draw(st.lists(NAMES, max_size=5, unique=True))}
    rows = [{name: draw(VALUES[kind]) for name, kind in columns.items()} for _ in range(draw(st.integers(1, 5)))]
    if draw(st.integers(0, 9)) == 0:
        rows[-1] = dict(reversed(rows[-1].items()))
    request: dict[str, Any] = {draw(st.sampled_from(["candidates", "candidates", "rows"])): rows}
    if draw(st.booleans()):
        request["context"] = draw(st.dictionaries(NAMES, VALUES["other"], max_size=3))
    if draw(st.booleans()):
        request["request_id"] = draw(st.sampled_from(["r-1", "", "ü", "a\\"]))
    if draw(st.booleans()):
        request = dict(reversed(request.items()))
    spaces = draw(st.sampled_from([(",", ":"), (" ,\n", ": "), (", ", "\t:\r ")]))
    return json.dumps(request, ensure_ascii=draw(st.booleans()), separators=spaces).encode()


def columns_of(of: Given) -> dict[str, tuple[str, list[Any]]]:
    """Types and values, floats by their bits."""
    found = {}
    for name, column in {**of.shared, **of.own}.items():
        values = column.to_pylist()
        found[name] = str(column.type), [v.hex() if isinstance(v, float) else v for v in values]
    return found


def outcome(read: Any, request: Any, scorer: RequestScorer) -> Any:
    try:
        found = read(request, scorer.rules)
    except Refusal as refusal:
        return refusal.status, str(refusal), refusal.field
    return found.k, found.rows_name, columns_of(found), sorted(found.gaps)


@pytest.fixture(scope="module")
def scorer(zoo: ServedVersion) -> RequestScorer:
    return RequestScorer(zoo)


def need_the_same(body: bytes, scorer: RequestScorer) -> bool:
    """Whether the body was read as columns; if so, what is read is what the slower way reads."""
    found = read_rows_request(body)
    if found is None:
        return False
    whole = msgspec.json.decode(body, type=wire.ScoreRequest)
    assert found.request_id == whole.request_id and found.context == whole.context
    rows = whole.rows if whole.candidates is None else whole.candidates
    assert found.rows.num_rows == len(rows or ())
    found.rows.validate(full=True)
    assert outcome(given_in_rows, found, scorer) == outcome(given_in_json, whole, scorer)
    return True


@settings(max_examples=400)
@given(body=bodies())
def test_what_is_read_is_what_the_slower_way_reads(scorer: RequestScorer, body: bytes) -> None:
    need_the_same(body, scorer)


@settings(max_examples=400)
@given(
    body=bodies(),
    place=st.integers(0, 10**6),
    with_bytes=st.binary(max_size=2) | st.sampled_from(list(b'0 1 - . e E + " , : { } [ ] \\ n u'.split())),
    cut=st.integers(0, 2),
)
def test_damaged_bodies_are_read_as_the_slower_way_reads_them_or_not_at_all(
    scorer: RequestScorer, body: bytes, place: int, with_bytes: bytes, cut: int
) -> None:
    place %= len(body) + 1
    need_the_same(body[:place] + with_bytes + body[place + cut :], scorer)


@pytest.mark.parametrize(
    "value",
    [
        *("0", "-0", "7", "9223372036854775807", "-9223372036854775808", "-0.0", "0.5", "1e0", "1E+2", "1.5e-3"),
        *("9007199254740992.0", "9007199254740993.0", "20999999046325684e-16", "2.0999999046325684", "4.9e-324"),
        *("0.1000000000000000055511151231257827", "123456789012345678.5", "1.7976931348623157e308"),
        *('"a"', '"\\u00e9\\ud83d\\ude00\\n\\/"', '"é"', "null", '"\\u0000"'),
    ],
)
def test_numbers_and_strings_of_every_form_are_read_as_columns(scorer: RequestScorer, value: str) -> None:
    assert need_the_same(b'{"context":{},"candidates":[{"price":%s},{"price":null}]}' % value.encode(), scorer)


@pytest.mark.parametrize(
    "value",
    [
        *("01", "+1", "1.", ".5", "1e", "--1", "1e999", "9223372036854775808", "NaN", "Infinity", "-", "nul", "true"),
        *('"\\x"', '"\\ud83d"', '"\\udc00"', '"\n"', '"a', "[1]", "{}", "", '"' + "a" * 65_537 + '"'),
    ],
)
def test_what_is_no_number_or_string_is_left_to_the_slower_way(value: str) -> None:
    assert read_rows_request(b'{"context":{},"candidates":[{"price":%s}]}' % value.encode()) is None
    for bad in (b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\xaf"):
        assert read_rows_request(b'{"context":{},"candidates":[{"price":"%s"}]}' % bad) is None


@pytest.mark.parametrize(
    "body",
    [
        *("", "[]", "{}", '{"rows":[]}', '{"candidates":[{}]}', '{"candidates":["a"]}', '{"rows":[{"a":1}]}x'),
        *('{"rows":[{"a":1},{"b":1}]}', '{"rows":[{"a":1},{"a":1,"b":2}]}', '{"rows":[{"a":1,"a":2}]}'),
        *('{"rows":[{"a":1}],"rows":[{"a":1}]}', '{"rows":[{"a":1}],"context":{}}', '{"rows":[{"a":1}],"other":1}'),
        *('{"rows":[{"a":1},{"a":"x"}]}', '{"candidates":[{"a":1}],"context":[1]}', '{"candidates":[{"a":1}]'),
        *('{"candidates":[{"a":1}],"context":{"a":}}', '{"candidates":[{"a":1}],"context":{"b":"\\"}'),
    ],
)
def test_requests_of_another_kind_are_left_to_the_slower_way(body: str) -> None:
    assert read_rows_request(body.encode()) is None


def rows_request(user: int, prices: list[Any]) -> RowsRequest:
    """A request that is read as columns."""
    candidates = [{"item": item_name(place), "price": price} for place, price in enumerate(prices)]
    found = read_rows_request(json.dumps({"context": {**CONTEXT, "user": user}, "candidates": candidates}).encode())
    assert found is not None
    return found


def test_requests_together_have_the_scores_cold_ids_and_counts_that_each_has_alone(scorer: RequestScorer) -> None:
    requests: list[Any] = [rows_request(user, [1.5, 2, 3.25][: 1 + user % 3]) for user in (1, 2, 10**12, 3, 4)]
    requests += [
        wire.ScoreRequest(context={**CONTEXT, "near": [], "near_weight": []}, candidates=[{"item": "x", "price": 1}]),
        wire.ScoreRequest(context=CONTEXT, candidates=[{"item": "no such item", "price": 2.5}] * 3),
        wire.ScoreRequest(context={**CONTEXT, "user": 10**12}, candidates=[{"item": item_name(1), "price": 2.5}]),
    ]
    together = scorer.score_all(requests)
    for request, found in zip(requests, together, strict=True):
        (alone,) = scorer.score_all([request])
        assert isinstance(found, Answer) and isinstance(alone, Answer)
        assert found.scores.tobytes() == alone.scores.tobytes()
        assert found.of.cold_ids() == alone.of.cold_ids()
        assert found.of.counts() == alone.of.counts()
        assert found.missing == alone.missing


def test_a_fault_of_one_request_is_its_own(scorer: RequestScorer) -> None:
    good = rows_request(1, [1.5, 2.5])
    bad = wire.ScoreRequest(context=CONTEXT, candidates=[{"item": "a", "price": 1.5}, {"item": "b", "price": -2.5}])
    other = wire.ScoreRequest(context=CONTEXT, candidates=[{"item": "a", "prise": 1.5}])
    found = scorer.score_all([good, bad, good, other, good])
    (alone,) = scorer.score_all([good])
    assert isinstance(alone, Answer)
    for place in (0, 2, 4):
        answer = found[place]
        assert isinstance(answer, Answer) and answer.scores.tobytes() == alone.scores.tobytes()
    refusals = [found[1], found[3]]
    assert all(isinstance(each, Refusal) and each.status == 422 for each in refusals)
    assert [each.field for each in refusals if isinstance(each, Refusal)] == [
        "candidates.1.price",
        "candidates.0.prise",
    ]


def test_columns_outlive_the_batch_that_they_came_in() -> None:
    columns = rows_request(1, [1.5, None, 2.5]).rows.columns
    assert [column.to_pylist() for column in columns] == [[item_name(n) for n in range(3)], [1.5, None, 2.5]]


def test_names_that_clients_make_up_are_neither_kept_nor_read_as_columns(zoo: ServedVersion) -> None:
    scorer = RequestScorer(zoo)
    for number in range(300):
        found = read_rows_request(json.dumps({"rows": [{f"x{number}": 1}]}).encode())
        assert found is not None
        with pytest.raises(Refusal, match="there is no column"):
            given_in_rows(found, scorer.rules)
    assert not scorer.rules.good_shapes
    (answer,) = scorer.score_all([rows_request(1, [1.5])])
    assert isinstance(answer, Answer) and len(scorer.rules.good_shapes) == 1
    assert read_rows_request(json.dumps({"rows": [{"x" * 257: 1}]}).encode()) is None
    assert read_rows_request(json.dumps({"rows": [{f"x{n}": 1 for n in range(257)}]}).encode()) is None

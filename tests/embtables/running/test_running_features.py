"""Running features against a list of all events: windows at their borders, equal times, any order of arrival."""

from __future__ import annotations

import doctest
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embtables.arrow.one_type import EARLIEST, LATEST
from embtables.errors import ConfigError, DataError
from embtables.inputs.values import BadRowsError
from embtables.running import RunningCounts, RunningFeatures, features
from embtables.schema import RunningFeature, RunningOptions, running
from tests.embtables.running.oracle_for_tests import Oracle, as_batch

SECOND = 1_000_000
COLUMNS = {"item": pa.string(), "user": pa.int64(), "price": pa.float64()}


def feature(**options: Any) -> RunningFeature:
    return RunningFeature.model_validate(options)


FEATURES = [
    feature(name="sales", count="events", by="item"),
    feature(name="sales_3s", count="events", by="item", window="3s"),
    feature(name="sales_20s", count="events", by="item", window="20s"),
    feature(name="age", age="seconds", by="item", default=999, at_most=50),
    feature(name="idle", idle="minutes", by="item"),
    feature(name="price", last_value="price", by="item"),
    feature(name="history", last_n={"column": "item", "n": 3}, by="user"),
    feature(name="users", last_n={"column": "user", "n": 1}, by="item"),
    feature(name="user_count", count="events", by="user", window="5s"),
    feature(name="pair_count", count="events", by=["user", "item"]),
    feature(name="pair_idle", idle="seconds", by=["user", "item"], default=-1),
    feature(name="dear", count="events", by="item", window="20s", where=["price > 2"]),
]

items = st.sampled_from(["a", "b", "", None])
users = st.sampled_from([0, 1, -(2**63), 2**63 - 1, None])
rows = st.fixed_dictionaries(
    {"item": items, "user": users, "price": st.one_of(st.none(), st.integers(-3, 5).map(float))}
)


def at(rows: list[dict[str, Any]], times: list[int]) -> list[dict[str, Any]]:
    return [{**row, "event_time": time} for row, time in zip(rows, times, strict=True)]


def answers(found: dict[str, pa.Array]) -> list[dict[str, Any]]:
    return pa.table(found).to_pylist()


@st.composite
def batches(draw: st.DrawFn) -> list[tuple[list[dict[str, Any]], list[dict[str, Any]]]]:
    """Batches of events and of questions at half seconds, so that times are equal and at the borders of windows, before
    a clock that goes on: questions by at most 10 seconds, events by at most 60.
    """
    found = []
    clock = draw(st.integers(-10, 10))
    for _ in range(draw(st.integers(1, 6))):
        clock += draw(st.integers(0, 40))
        parts = []
        for furthest in (120, 20):
            drawn = draw(st.lists(rows, max_size=8))
            times = [(2 * clock - draw(st.integers(0, furthest))) * SECOND // 2 for _ in drawn]
            parts.append(at(drawn, times))
        found.append((parts[0], parts[1]))
    return found


@settings(deadline=None, max_examples=150)
@given(batches())
def test_every_answer_within_the_lateness_is_exact(given_batches: list[Any]) -> None:
    # The fold's clock is the time of an event at most, and no question is more than ten seconds before that.
    fold, oracle = RunningFeatures(FEATURES, RunningOptions(lateness_seconds=10)), Oracle(FEATURES)
    for events, questions in given_batches:
        fold.fold(as_batch(events, COLUMNS))
        oracle.fold(events)
        found = answers(fold.columns(as_batch(questions, COLUMNS)))
        assert found == [oracle.answer(question) for question in questions]
    assert fold.counts.late_questions == 0


@settings(deadline=None, max_examples=60)
@given(batches(), st.integers(1, 5))
def test_a_state_goes_on_as_the_fold_it_was_taken_from(given_batches: list[Any], cut: int) -> None:
    options = RunningOptions(lateness_seconds=2, keep_seconds=25)
    undisturbed, restarted = RunningFeatures(FEATURES, options), RunningFeatures(FEATURES, options)
    for number, (events, questions) in enumerate(given_batches):
        for fold in (undisturbed, restarted):
            fold.fold(as_batch(events, COLUMNS))
        state = restarted.state()  # which frees what expired: answers are the same where nothing was freed yet
        if number == cut:
            restarted = RunningFeatures(FEATURES, options)
            restarted.load(state)
        asked = as_batch(questions, COLUMNS)
        assert answers(restarted.columns(asked)) == answers(undisturbed.columns(asked))
    assert_same_state(restarted, undisturbed)


def assert_same_state(one: RunningFeatures, other: RunningFeatures) -> None:
    first, second = one.state(), other.state()
    assert (first.definitions, first.clock, first.counts) == (second.definitions, second.clock, second.counts)
    for a, b in zip(first.groups, second.groups, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            assert np.array_equal(a[name], b[name]), name


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_replay_answers_as_asking_before_folding_does(data: st.DataObject) -> None:
    """A log in order: cut anywhere, an event sees what was strictly earlier, whatever is in its own slice."""
    drawn = data.draw(st.lists(rows, min_size=1, max_size=40))
    steps = data.draw(st.lists(st.integers(0, 6), min_size=len(drawn), max_size=len(drawn)))
    events = at(drawn, [int(time) * SECOND for time in np.cumsum(steps)])
    oracle = Oracle(FEATURES)
    oracle.fold(events)
    whole = [oracle.answer(event) for event in events]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(events)), max_size=4)))
    fold = RunningFeatures(FEATURES, RunningOptions(lateness_seconds=0))
    found: list[dict[str, Any]] = []
    for start, stop in zip([0, *cuts], [*cuts, len(events)], strict=True):
        batch = as_batch(events[start:stop], COLUMNS)
        found += answers(fold.replay(batch, batch))
    assert found == whole


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.sampled_from([EARLIEST + 1, -1, 0, 1, LATEST - 1]), st.booleans()), max_size=12))
def test_the_ends_of_time(moves: list[tuple[int, bool]]) -> None:
    fold, oracle = RunningFeatures(FEATURES, RunningOptions(lateness_seconds=0)), Oracle(FEATURES)
    for time, is_event in moves:
        row = at([{"item": "a", "user": 1, "price": 1.0}], [time])
        if is_event:
            fold.fold(as_batch(row, COLUMNS))
            oracle.fold(row)
        question = at([{"item": "a", "user": 1}], [LATEST - 1])
        assert answers(fold.columns(as_batch(question, COLUMNS))) == [oracle.answer(question[0])]


def test_a_question_sees_nothing_of_its_own_time_and_a_window_holds_its_first_moment() -> None:
    fold = RunningFeatures(FEATURES[:3])
    fold.fold(as_batch(at([{"item": "a"}] * 3, [0, 3 * SECOND, 3 * SECOND]), COLUMNS))
    times = [0, 1, 3 * SECOND, 3 * SECOND + 1, 6 * SECOND, 6 * SECOND + 1]
    found = fold.columns(as_batch(at([{"item": "a"}] * 6, times), COLUMNS))
    assert found["sales"].to_pylist() == [0, 1, 1, 3, 3, 3]
    assert found["sales_3s"].to_pylist() == [0, 1, 1, 2, 2, 0]


def test_an_unknown_key_and_a_null_one_have_what_none_has() -> None:
    fold = RunningFeatures(FEATURES)
    none = {feature.name: Oracle([feature]).answer({"event_time": 0})[feature.name] for feature in FEATURES}
    question = as_batch(at([{}, {"item": "never", "user": 7}], [5, 5]), COLUMNS)
    assert answers(fold.columns(question)) == [none, none]
    fold.fold(as_batch(at([{"item": "a", "user": 1}], [0]), COLUMNS))
    assert answers(fold.columns(question)) == [none, none]


def test_one_event_of_the_far_future_takes_nothing_from_the_windows() -> None:
    fold = RunningFeatures(FEATURES[:3], RunningOptions(lateness_seconds=0, keep_seconds=60, max_clock_step_seconds=10))
    day = 86_400 * SECOND
    fold.fold(as_batch(at([{"item": "a"}, {"item": "b"}], [0, 0]), COLUMNS))
    fold.fold(as_batch(at([{"item": "b"}], [90 * day]), COLUMNS))
    assert fold.counts.held_back == 1
    assert fold.clock == 10 * SECOND
    asked = as_batch(at([{"item": "a"}, {"item": "b"}], [12 * SECOND] * 2), COLUMNS)
    assert fold.columns(asked)["sales_20s"].to_pylist() == [1, 1]
    fold.fold(as_batch(at([{"item": "b"}], [-90 * day]), COLUMNS))
    assert fold.counts.late_events == 1
    assert fold.columns(asked)["sales_20s"].to_pylist() == [1, 1]
    assert fold.columns(asked)["sales"].to_pylist() == [1, 2]


def test_keys_without_events_are_forgotten_and_their_memory_is_used_again() -> None:
    fold = RunningFeatures(FEATURES, RunningOptions(lateness_seconds=0, keep_seconds=60))

    def generation(number: int) -> pa.RecordBatch:
        times = [100 * number * SECOND + n for n in range(5000)]
        rows = [{"item": f"{number}.{n}", "user": 5000 * number + n, "price": 1.0} for n in range(5000)]
        return as_batch(at(rows, times), COLUMNS)

    fold.fold(generation(0))
    first = fold.bytes
    assert fold.num_keys == 3 * 5000  # items, users and pairs; there is no dear sale
    asked = as_batch(at([{"item": "0.7", "user": 7}], [101 * SECOND]), COLUMNS)
    assert fold.columns(asked)["pair_count"].to_pylist() == [1]
    for number in range(1, 20):
        fold.fold(generation(number))
        assert fold.columns(asked)["pair_count"].to_pylist() == [0]
    assert fold.bytes < 3 * first  # of twenty generations
    fold.state()
    assert fold.num_keys == 3 * 5000
    fold.fold(as_batch(at([{"item": "0.7", "user": 7}], [1900 * SECOND]), COLUMNS))
    asked = as_batch(at([{"item": "0.7", "user": 7}], [1901 * SECOND]), COLUMNS)
    assert fold.columns(asked)["pair_count"].to_pylist() == [1]


@pytest.mark.parametrize(("beyond", "count"), [(0, 1), (1, 0)])
def test_a_key_is_forgotten_when_it_had_no_event_for_longer_than_is_kept(beyond: int, count: int) -> None:
    options = RunningOptions(lateness_seconds=0, keep_seconds=60)
    for is_swept in (False, True):
        fold = RunningFeatures(FEATURES, options)
        fold.fold(as_batch(at([{"item": "a"}], [0]), COLUMNS))
        fold.fold(as_batch(at([{"item": "b"}], [60 * SECOND + beyond]), COLUMNS))
        if is_swept:
            fold.state()
        asked = as_batch(at([{"item": "a"}], [61 * SECOND]), COLUMNS)
        assert fold.columns(asked)["sales"].to_pylist() == [count]


def test_what_left_the_windows_is_counted_and_not_held() -> None:
    fold = RunningFeatures(FEATURES[:3], RunningOptions(lateness_seconds=0))
    times = [n * SECOND for n in range(50_000)]
    for start in range(0, 50_000, 500):
        fold.fold(as_batch(at([{"item": "a"}] * 500, times[start : start + 500]), COLUMNS))
    asked = as_batch(at([{"item": "a"}], [times[-1] + 1]), COLUMNS)
    assert {name: of.to_pylist() for name, of in fold.columns(asked).items()} == {
        "sales": [50_000],
        "sales_3s": [3],
        "sales_20s": [20],
    }
    empty = RunningFeatures(FEATURES[:3]).bytes
    assert fold.bytes - empty < 100_000  # a batch of times, not 400 kB of them all


def test_rows_that_cannot_be_used_are_counted_and_the_others_go_on() -> None:
    fold = RunningFeatures(FEATURES)
    good = {"item": "a", "user": 1, "price": 1.0}
    rows = at([good, {**good, "item": None}, {**good, "price": float("nan")}, {**good, "user": None}], [0, 1, 2, 3])
    batch = as_batch(rows, COLUMNS)
    times = pa.array([0, 1, 2, None], pa.timestamp("us"))
    fold.fold(batch.set_column(3, "event_time", times))
    assert fold.counts == RunningCounts(events=4, ignored={"price": 1, "event_time": 1, "item": 1, "user, item": 1})
    asked = as_batch(at([good], [10]), COLUMNS)
    assert fold.columns(asked)["sales"].to_pylist() == [1]
    assert fold.columns(asked)["user_count"].to_pylist() == [2]


def test_a_column_that_a_batch_has_not_is_null_there() -> None:
    fold = RunningFeatures(FEATURES)
    whole = as_batch(at([{"item": "a", "user": 1, "price": 3.0}], [0]), COLUMNS)
    fold.fold(whole.select(["item", "event_time"]))
    assert fold.counts.ignored == {"user": 1, "user, item": 1}
    fold.fold(whole)
    found = fold.columns(as_batch(at([{"item": "a", "user": 1}], [1]), COLUMNS))
    assert {name: found[name].to_pylist() for name in ("sales", "dear", "price", "user_count")} == {
        "sales": [2],
        "dear": [1],
        "price": [3.0],
        "user_count": [1],
    }


def test_a_wrong_type_is_refused_and_nothing_is_folded() -> None:
    fold = RunningFeatures(FEATURES)
    wrong = as_batch(at([{"item": "a", "user": 1.5}], [0]), {**COLUMNS, "user": pa.float64()})
    with pytest.raises(DataError, match="column user: holds double"):
        fold.fold(wrong)
    assert fold.counts.events == fold.num_keys == 0


def test_questions_that_cannot_be_answered_say_why() -> None:
    fold = RunningFeatures(FEATURES)
    asked = as_batch(at([{"item": "a", "user": 1}], [0]), COLUMNS)
    with pytest.raises(DataError, match="column user: is missing; there are: item, event_time"):
        fold.columns(asked.select(["item", "event_time"]))
    assert fold.columns(asked.select(["item", "event_time"]), ["sales"])["sales"].to_pylist() == [0]
    with pytest.raises(DataError, match="column event_time: is missing"):
        fold.columns(asked.select(["item", "user"]))
    with pytest.raises(DataError, match="there is no running feature 'sale'; there are: sales, "):
        fold.columns(asked, ["sale"])
    with pytest.raises(BadRowsError, match="is null; every row needs an event time"):
        fold.columns(asked.set_column(3, "event_time", pa.array([None], pa.timestamp("us"))))


def test_late_questions_are_counted_and_never_see_a_later_first_event() -> None:
    fold = RunningFeatures(FEATURES[:3], RunningOptions(lateness_seconds=0))
    fold.fold(as_batch(at([{"item": "a"}] * 2, [0, 100 * SECOND]), COLUMNS))
    fold.fold(as_batch(at([{"item": "a"}], [200 * SECOND]), COLUMNS))
    found = fold.columns(as_batch(at([{"item": "a"}] * 2, [0, 300 * SECOND]), COLUMNS))
    assert found["sales"].to_pylist() == [0, 3]
    assert fold.counts.late_questions == 1


@pytest.mark.parametrize(
    ("definitions", "options", "message"),
    [
        ([], {}, "there are no running features"),
        ([FEATURES[0], FEATURES[0]], {}, "two running features have the name 'sales'"),
        (FEATURES, {"keep_seconds": 3619}, "keep_seconds is 3619, but 'sales_20s' needs its events for 3620 seconds"),
    ],
)
def test_definitions_that_do_not_go_together(definitions: Any, options: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=f"running: {message}"):
        RunningFeatures(definitions, RunningOptions(**options))


@pytest.mark.parametrize("module", [features, running])
def test_examples_run(module: Any) -> None:
    found = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert found.attempted > 0
    assert found.failed == 0

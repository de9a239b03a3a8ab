"""Samples of an event log: against an oracle over random events, after restarts, and by cases."""

from __future__ import annotations

import itertools
import random

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embtables.errors import EventsLostError
from embtables.pipelines.online.join.joined_events import JoinedEvents, JoinedState
from embtables.pipelines.online.join.payloads import EntryCache, Payloads
from tests.pipelines.online.events_for_tests import (
    Event,
    LogInMemory,
    batch,
    click,
    imp,
    options,
    passed,
    read_all,
)
from tests.pipelines.online.join_oracle_for_tests import Oracle

COUNTED = (
    *("positives", "negatives", "late_positives", "duplicate_impressions", "duplicate_actions"),
    *("too_late", "too_early", "too_old", "too_far_ahead", "orphans", "request_missing"),
)
DAY = 86_400


@st.composite
def random_logs(draw: st.DrawFn) -> LogInMemory:
    """Requests of a few items, clicked soon, late, twice, before they are shown or never; entries out of order, some
    twice; times that are far off."""
    partitions = draw(st.integers(1, 3))
    rng = random.Random(draw(st.integers(0, 2**32)))
    length = draw(st.integers(0, 60))
    disorder = draw(st.sampled_from([0.0, 20.0, 400.0]))
    log = LogInMemory(partitions)
    for partition in range(partitions):
        events: list[tuple[float, Event]] = []
        now = 0.0
        for number in range(length):
            now += rng.choice([0, 0, 1, 5, 30, 200])
            request = f"{partition}-{number}" if rng.random() < 0.97 else None
            for item in "abc"[: rng.randint(1, 3)]:
                shown = now + rng.choice([0, 0, 0, 1])
                # A stray one comes with the others of its time.
                stray = rng.choice([-90, 90]) * DAY if rng.random() < 0.02 else 0
                events.append((now, Event("impression", request, item, shown + stray)))
                for _ in range(rng.choice([0, 0, 1, 1, 2])):
                    lag = rng.choice([-200, -6, -5, -1, 0, 3, 60, 99, 100, 101, 150, 300, 301, 500])
                    kind = rng.choice(["click", "click", "click", "hover"])
                    events.append((shown + lag, Event(kind, request, item, shown + lag)))
        events.sort(key=lambda event: event[0] + rng.uniform(0, disorder))
        while events:
            size = rng.choice([1, 2, 5, 20])
            entry = batch([event for _, event in events[:size]])
            events = events[size:]
            for _ in range(2 if rng.random() < 0.05 else 1):
                log.append(partition, entry)
    return log


random_options = st.builds(
    lambda late, step, ahead: options(late_window_seconds=late, max_clock_step_seconds=step, max_ahead_seconds=ahead),
    st.sampled_from([0, 200]),
    st.sampled_from([50, 1000]),
    st.sampled_from([2000, 100 * DAY]),
)


@settings(deadline=None, max_examples=100)
@given(log=random_logs(), online=random_options, batch_rows=st.sampled_from([1, 7, 1000]))
def test_samples_and_counts_are_those_of_the_oracle(log: LogInMemory, online: object, batch_rows: int) -> None:
    found = read_all(log, online, batch_rows=batch_rows)  # type: ignore[arg-type]
    expected = Oracle(log, online).run()  # type: ignore[arg-type]
    assert sorted(found.samples) == sorted(expected.samples)
    counts = found.reader.counts
    assert {name: counts[name] for name in COUNTED} == {name: expected.counts[name] for name in COUNTED}
    assert found.reader.open_keys == len(expected.seen) + len(expected.waiting)


@settings(deadline=None, max_examples=40)
@given(log=random_logs(), online=random_options, batch_rows=st.sampled_from([1, 7, 50]), data=st.data())
def test_a_restart_after_any_batch_changes_nothing(
    log: LogInMemory, online: object, batch_rows: int, data: st.DataObject
) -> None:
    whole = read_all(log, online, batch_rows=batch_rows)  # type: ignore[arg-type]
    if not whole.batches:
        return
    after = data.draw(st.integers(0, len(whole.batches) - 1))
    files = {name: b"".join(file.chunks()) for name, file in whole.states[after].files().items()}
    state = JoinedState.of_files(whole.states[after].content, {name: memoryview(raw) for name, raw in files.items()})
    rest = read_all(log, online, batch_rows=batch_rows, state=state)  # type: ignore[arg-type]
    assert whole.batches[after + 1 :] == rest.batches
    assert [each.schema for each in whole.batches[after + 1 :]] == [each.schema for each in rest.batches]
    assert bytes_of(whole.reader.state()) == bytes_of(rest.reader.state())
    assert [bytes_of(each) for each in whole.states[after + 1 :]] == [bytes_of(each) for each in rest.states]


def bytes_of(state: JoinedState) -> tuple[object, dict[str, bytes]]:
    return state.content, {name: b"".join(file.chunks()) for name, file in state.files().items()}


class TestTime:
    def test_a_stray_time_closes_no_window(self) -> None:
        log = LogInMemory()
        log.append(0, batch([imp("r", "a", 0), imp("r", "b", 0)]))
        for days in (90, -90):
            log.append(0, batch([imp(f"s{days}", "x", days * DAY)]))
            log.append(0, batch([Event("tick", None, None, days * DAY)]))
            log.append(0, batch([imp(f"t{days}", "x", days * DAY), imp("u", "x", 1), imp("v", "x", 2)]))
        log.append(0, batch([click("r", "a", 90)]))
        for online in (options(), options(max_clock_step_seconds=20, max_ahead_seconds=100 * DAY)):
            found = read_all(log, online)
            assert ("r", "a", 1.0, False) in found.samples
            assert [sample for sample in found.samples if sample[2] == 0.0] == []

    def test_a_quiet_partition_holds_the_watermark_until_it_is_idle(self) -> None:
        log, clock = LogInMemory(2), [0.0]
        reader = JoinedEvents(
            log,
            options(idle_seconds=30.0),
            "click",
            batch_rows=1,
            is_replay=False,
            set_aside=lambda reason, events: None,
            now=lambda: clock[0],
        )
        log.append(0, batch([imp("r", "a", 0)]))
        log.append(1, batch([Event("tick", None, None, 0)]))

        def wait(after: object, timeout_seconds: float, *, partitions: object) -> bool:
            clock[0] += 10
            passed_in(log, 0, 500)
            return True

        log.wait = wait  # type: ignore[method-assign]
        until = itertools.takewhile(lambda _: clock[0] <= 100, reader.batches())
        given = [(clock[0], each.column("click")[0].as_py()) for each in until if each.num_rows]
        assert given == [(30.0, 0.0)]
        assert [of["idle"] for of in reader.state().content["partitions"].values()] == [False, True]

    def test_a_partition_that_was_idle_holds_the_watermark_again(self) -> None:
        log, clock = LogInMemory(2), [0.0]
        reader = JoinedEvents(
            log,
            options(),
            "click",
            batch_rows=1,
            is_replay=False,
            set_aside=lambda reason, events: None,
            now=lambda: clock[0],
        )
        log.append(0, batch([imp("r", "a", 0)]))
        steps = [
            lambda: clock.__setitem__(0, 40.0),
            lambda: log.append(1, batch([Event("tick", None, None, 0)])),
            lambda: passed_in(log, 0, 500),  # partition 1 is back, and holds it at 0
            lambda: log.append(1, batch([Event("tick", None, None, 150)])),
        ]

        def wait(after: object, timeout_seconds: float, *, partitions: object) -> bool:
            if steps:
                steps.pop(0)()
                return True
            clock[0] += 1.0
            return False

        log.wait = wait  # type: ignore[method-assign]
        until = itertools.takewhile(lambda each: steps or each.num_rows, reader.batches())
        at = [len(steps) for each in until if each.num_rows]
        assert at == [0]


def passed_in(log: LogInMemory, partition: int, seconds: float) -> None:
    log.append(partition, batch([Event("tick", None, None, seconds)]))


class TestColumns:
    def test_a_column_that_is_added_is_null_in_rows_from_before(self) -> None:
        log = LogInMemory()
        log.append(0, batch([imp("r", "a", 0, price=1)]))
        log.append(0, batch([imp("r", "b", 0, price=2, shop="x")]))
        log.append(0, batch([imp("r", "c", 0, price=2.5, shop="y")]))
        passed(log, 1000)
        found = read_all(log, options(), batch_rows=3)
        rows = {row["item"]: (row["price"], row["shop"]) for each in found.batches for row in each.to_pylist()}
        assert rows == {"a": (1.0, None), "b": (2.0, "x"), "c": (2.5, "y")}

    def test_dictionaries_become_values(self) -> None:
        log = LogInMemory()
        plain_entry = batch([imp("r", "a", 0), imp("r", "b", 0)])
        encoded = [c.dictionary_encode() if pa.types.is_string(c.type) else c for c in plain_entry.columns]
        log.append(0, pa.record_batch(encoded, names=plain_entry.schema.names))
        log.append(0, batch([click("r", "b", 3)]))
        passed(log, 1000)
        found = read_all(log, options())
        assert sorted(found.samples) == [("r", "a", 0.0, False), ("r", "b", 1.0, False)]
        assert found.batches[0].schema.field("item").type == pa.string()

    def test_a_column_with_the_name_of_the_label_is_replaced(self) -> None:
        log = LogInMemory()
        log.append(0, batch([imp("r", "a", 0, click=1.0, correction="yes")]))
        passed(log, 1000)
        assert read_all(log, options()).samples == [("r", "a", 0.0, False)]

    def test_integers_are_items_as_strings_are_but_not_beside_them(self) -> None:
        log = LogInMemory()
        for events in ([imp("r", "7", 0)], [click("r", "7", 3)]):
            entry = batch(events)
            numbers = entry.column("item").cast(pa.int32())
            log.append(0, entry.set_column(entry.schema.get_field_index("item"), "item", numbers))
        log.append(0, batch([click("r", "7", 3)]))
        passed(log, 1000)
        found = read_all(log, options())
        assert found.samples == [] or [s[2:] for s in found.samples] == [(1.0, False)]
        assert found.reader.counts["positives"] == 1
        # Strings do not go with the integers of before, neither as a column of samples nor as keys.
        assert found.set_aside["columns_of_another_type"] == 1 + 1

    def test_only_kinds_that_are_named_are_actions(self) -> None:
        log = LogInMemory()
        log.append(0, batch([imp("r", "a", 0), Event("hover", "r", "a", 1), Event("buy", "r", "a", 2)]))
        passed(log, 1000)
        assert read_all(log, options()).samples == [("r", "a", 0.0, False)]
        assert read_all(log, options(actions=["click", "buy"])).samples == [("r", "a", 1.0, False)]


class TestBadEvents:
    def test_they_are_set_aside_by_reason_and_the_rest_goes_on(self) -> None:
        log = LogInMemory()
        log.append(0, batch([imp("r", "a", 0), imp("r", "b", 0)]))
        other = batch([imp("r", "c", 0)])
        log.append(0, other.replace_schema_metadata({"embtables.events": "99"}))
        log.append(0, other.drop_columns(["request_id"]))
        log.append(0, other.set_column(2, "event_time", pa.array([5], pa.int64())))
        log.append(0, batch([imp("", "d", 0), Event("impression", "r", None, 0), imp("q", "e", 0, price="dear")]))
        log.append(0, batch([imp("q", "f", 0, price=3.0)]))
        times = pa.array([None, 2**62], pa.timestamp("us"))
        log.append(0, batch([imp("t", "a", 0), imp("t", "b", 0)]).set_column(2, "event_time", times))
        log.append(0, batch([click("r", "a", 1), click("nobody", "a", 1)]))
        passed(log, 1000)
        found = read_all(log, options())
        assert found.set_aside == {
            "format_unknown": 1,
            "columns_missing": 1,
            "columns_of_another_type": 2,  # integers as times; a price in words is the first, so one in numbers is not
            "request_missing": 1,
            "item_missing": 1,
            "time_missing": 2,
            "orphans": 1,
        }
        assert {sample[:3] for sample in found.samples} == {("r", "a", 1.0), ("r", "b", 0.0), ("q", "e", 0.0)}

    def test_what_is_set_aside_is_the_event_itself(self) -> None:
        log = LogInMemory()
        log.append(0, batch([imp("r", "a", 0), click("r", "zz", 1, value=7)]))
        passed(log, 1000)
        given: list[tuple[str, object]] = []
        reader = JoinedEvents(
            log,
            options(),
            "click",
            batch_rows=9,
            is_replay=True,
            set_aside=lambda reason, events: given.append((reason, events.select(["item", "value"]).to_pylist())),
        )
        assert sum(each.num_rows for each in reader.batches()) == 1
        assert given == [("orphans", [{"item": "zz", "value": 7}])]


class TestPayloads:
    def test_an_entry_is_read_again_once_for_all_its_windows(self) -> None:
        log = LogInMemory()
        for number in range(20):
            log.append(0, batch([imp(f"{number}-{each}", "a", number) for each in range(50)]))
        passed(log, 50)
        states = read_all(log, options(), batch_rows=10_000).reader.state()
        passed(log, 1000)
        log.fetched.clear()
        found = read_all(log, options(), batch_rows=10_000, state=states)
        assert len(found.samples) == 1000
        assert sorted(log.fetched) == sorted((0, str(number)) for number in range(20))

    def test_what_is_kept_in_memory_has_a_limit(self) -> None:
        log = LogInMemory()
        for number in range(20):
            log.append(0, batch([imp(f"{number}-{each}", "a", 0, text="x" * 1000) for each in range(50)]))
        payloads = Payloads(EntryCache(log, 3 * log.entries[0][-1].nbytes), 0)
        for number in range(20):
            payloads.add(number, str(number), 0, None)
            assert payloads.events(number).num_rows == 50
        log.fetched.clear()
        for number in (19, 18, 17, 16, 18, 17, 16, 19, 18, 17):
            payloads.events(number)
        assert [position for _, position in log.fetched] == [
            "16",
            "19",
            "18",
            "17",
        ]  # the one used longest ago makes room

    def test_entries_are_let_go_when_nothing_of_them_is_open(self) -> None:
        log = LogInMemory()
        for number in range(50):
            log.append(0, batch([imp(f"{number}", "a", number * 10)]))
        passed(log, 605)
        found = read_all(log, options(late_window_seconds=200))
        assert found.reader.state().tables["entries.0"].num_rows == 50 - 31
        passed(log, 10_000)
        found = read_all(log, options(late_window_seconds=200, max_clock_step_seconds=DAY))
        assert found.reader.state().tables["entries.0"].num_rows == 0
        assert found.reader.open_keys == 0

    def test_an_open_impression_that_the_log_lost_stops_the_reader(self) -> None:
        log = LogInMemory()
        log.append(0, batch([imp("r", "a", 0)]))
        passed(log, 50)
        state = read_all(log, options()).reader.state()
        log.gone.add((0, 0))
        passed(log, 1000)
        with pytest.raises(EventsLostError):
            read_all(log, options(), state=state)

    def test_one_whose_time_was_ahead_of_all_others_does_not(self) -> None:
        log = LogInMemory()
        log.append(0, batch([imp("r", "a", 2 * DAY), imp("r", "b", 0), imp("r", "c", 0)]))
        passed(log, 1000)
        first = read_all(log, options())
        log.gone.add((0, 0))
        for number in range(60):
            passed(log, number * 3600)
        found = read_all(log, options(), state=first.reader.state())
        assert (len(first.samples), found.samples, found.reader.counts["lost_ahead"]) == (2, [], 1)


class TestNegatives:
    def test_a_share_of_them_is_kept_and_a_late_click_on_a_dropped_one_corrects_nothing(self) -> None:
        log = LogInMemory()
        log.append(0, batch([imp(f"{number}", "a", 0) for number in range(4000)]))
        passed(log, 150)
        log.append(0, batch([click(f"{number}", "a", 140) for number in range(4000)]))
        online = options(late_window_seconds=300, negative_rate=0.25)
        found = read_all(log, online, batch_rows=100)
        negatives = {request for request, _, label, _ in found.samples if label == 0.0}
        positives = {request: correction for request, _, label, correction in found.samples if label == 1.0}
        assert abs(len(negatives) - 1000) < 5 * (4000 * 0.25 * 0.75) ** 0.5
        assert len(positives) == 4000
        assert {request for request, correction in positives.items() if correction} == negatives
        assert found.reader.counts["negatives_dropped"] == 4000 - len(negatives)
        again = read_all(log, options(late_window_seconds=300, negative_rate=0.25, negative_seed=1), batch_rows=100)
        assert {request for request, _, label, _ in again.samples if label == 0.0} != negatives

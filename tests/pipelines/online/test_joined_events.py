"""Samples of an event log: against an oracle over random events, after restarts, and by cases."""

from __future__ import annotations

import random

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from embtables.pipelines.online.joined_events import JoinedEvents, JoinedState
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


@settings(deadline=None, max_examples=150)
@given(log=random_logs(), online=random_options, batch_rows=st.sampled_from([1, 7, 1000]))
def test_samples_and_counts_are_those_of_the_oracle(log: LogInMemory, online: object, batch_rows: int) -> None:
    found = read_all(log, online, batch_rows=batch_rows)  # type: ignore[arg-type]
    expected = Oracle(log, online).run()  # type: ignore[arg-type]
    assert sorted(found.samples) == sorted(expected.samples)
    counts = found.reader.joiner.counts
    assert {name: counts[name] for name in COUNTED} == {name: expected.counts[name] for name in COUNTED}
    assert found.reader.joiner.open_keys == len(expected.seen) + len(expected.waiting)


@settings(deadline=None, max_examples=60)
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

"""Samples of an event log on several ranks: of each as of one reader of its partitions; others go on with the state."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embtables.errors import StateError
from embtables.pipelines.online.join.joined_events import JoinedEvents, JoinedState
from embtables.schema import EventSamples
from embtables.shard.world import World
from tests.pipelines.online.events_for_tests import Event, LogInMemory, batch, click, imp, options
from tests.pipelines.online.join_oracle_for_tests import Oracle
from tests.pipelines.online.test_joined_events import COUNTED, random_logs, random_options
from tests.shard.threads_for_tests import in_threads

Sample = tuple[str, str, float, bool]


@dataclass
class RankRead:
    """What one rank gave: of each batch its samples, and the state after it."""

    batches: list[list[Sample]] = field(default_factory=list)
    states: list[JoinedState] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


def nobody(reason: str, events: pa.RecordBatch) -> None:
    """What is set aside is not looked at."""


def read_on(ranks: int, log: LogInMemory, online: EventSamples, rows: int, state: JoinedState | None) -> list[RankRead]:
    """A replay to its end by so many ranks."""

    def read(world: World) -> RankRead:
        reader = JoinedEvents(
            log, online, "click", batch_rows=rows, is_replay=True, set_aside=nobody, world=world, state=state
        )
        found = RankRead()
        for each in reader.batches():
            of = [(row["request_id"], row["item"], row["click"], row["correction"]) for row in each.to_pylist()]
            found.batches.append(of)
            found.states.append(reader.state())
        found.counts = reader.counts
        return found

    return in_threads(ranks, read)


def whole_state(found: list[RankRead], number: int) -> JoinedState:
    """The state of all ranks after a batch, as a version has it."""
    contents = [rank.states[number].content for rank in found]
    assert all(content == contents[0] for content in contents), "it is the same at every rank"
    tables: dict[str, Any] = {}
    for rank in found:
        assert not tables.keys() & rank.states[number].tables.keys(), "each rank has names of its own"
        tables |= rank.states[number].tables
    return JoinedState(contents[0], tables)


@settings(deadline=None, max_examples=40)
@given(log=random_logs(), online=random_options, rows=st.sampled_from([1, 7, 1000]), ranks=st.integers(2, 4))
def test_each_rank_joins_its_partitions_as_one_reader_of_these_would(
    log: LogInMemory, online: EventSamples, rows: int, ranks: int
) -> None:
    found = read_on(ranks, log, online, rows, None)
    counts: Counter[str] = Counter()
    for rank, own in enumerate(found):
        part = LogInMemory(max(1, len(range(rank, log.num_partitions, ranks))))
        for place, partition in enumerate(range(rank, log.num_partitions, ranks)):
            part.entries[place] = log.entries[partition]
        expected = Oracle(part, online).run()
        assert sorted(sample for each in own.batches for sample in each) == sorted(expected.samples)
        counts.update(expected.counts)
        assert own.counts == found[0].counts
    assert len({len(own.batches) for own in found}) == 1
    assert {name: found[0].counts[name] for name in COUNTED} == {name: counts[name] for name in COUNTED}


@st.composite
def uneven_logs(draw: st.DrawFn) -> tuple[LogInMemory, int, int]:
    """Partitions whose times are far apart, in order; and how many impressions and clicks there are."""
    rng = random.Random(draw(st.integers(0, 2**32)))
    log, shown, clicked = LogInMemory(draw(st.integers(1, 4))), 0, 0
    for partition in range(log.num_partitions):
        now, entries = rng.choice([0.0, 500.0, 20_000.0]), list[tuple[float, Event]]()
        for number in range(rng.randint(0, 20)):
            now += rng.choice([1, 30, 200])
            entries.append((now, imp(f"{partition}-{number}", "a", now)))
            shown += 1
            if rng.random() < 0.5:
                at = now + rng.choice([1, 90, 150])
                entries.append((at, click(f"{partition}-{number}", "a", at)))
                clicked += 1
        for _, event in sorted(entries, key=lambda entry: entry[0]):
            log.append(partition, batch([event]))
        log.append(partition, batch([Event("tick", None, None, now + 5000)]))
    return log, shown, clicked


@settings(deadline=None, max_examples=40)
@given(
    made=uneven_logs(),
    before=st.integers(1, 4),
    after=st.integers(1, 4),
    rows=st.sampled_from([2, 5, 50]),
    data=st.data(),
)
def test_any_number_of_ranks_goes_on_and_each_event_is_used_once(
    made: tuple[LogInMemory, int, int], before: int, after: int, rows: int, data: st.DataObject
) -> None:
    log, shown, clicked = made
    online = options(late_window_seconds=200, max_clock_step_seconds=100_000)
    first = read_on(before, log, online, rows, None)
    if not first[0].batches:
        return
    stopped = data.draw(st.integers(0, len(first[0].batches) - 1))
    rest = read_on(after, log, online, rows, whole_state(first, stopped))
    given_before = [sample for rank in first for each in rank.batches[: stopped + 1] for sample in each]
    samples = given_before + [sample for rank in rest for each in rank.batches for sample in each]
    assert len([s for s in samples if not s[3]]) == shown
    assert len({s[:2] for s in samples if not s[3]}) == shown
    assert len([s for s in samples if s[2] == 1.0]) == clicked
    counts = rest[0].counts if rest[0].batches else first[0].counts
    assert counts["too_old"] == counts["orphans"] == counts["duplicate_impressions"] == 0
    if before == after:
        for rank, of in enumerate(rest):
            assert of.batches == first[rank].batches[stopped + 1 :]


def test_partitions_whose_columns_have_other_types_are_not_read_by_one_rank() -> None:
    log = LogInMemory(2)
    log.append(0, batch([imp("0", "a", 0, price=1.0)]))
    log.append(1, batch([imp("1", "a", 0, price="dear")]))
    for partition in range(2):
        log.append(partition, batch([click(f"{partition}", "a", 1)]))
    found = read_on(2, log, options(), 1, None)
    state = whole_state(found, 0)
    assert sum(len(each) for rank in read_on(2, log, options(), 1, state) for each in rank.batches) == 0
    with pytest.raises(StateError, match="go on with as many workers as before"):
        JoinedEvents(log, options(), "click", batch_rows=1, is_replay=True, set_aside=nobody, state=state)


def test_a_rank_that_has_news_does_not_wait_for_one_that_has_none() -> None:
    """Live, the rank that reads the busy partition gives full batches, and the other one none, step after step."""
    log = LogInMemory(2)
    for number in range(40):
        log.append(0, batch([imp(f"{number}", "a", number), click(f"{number}", "a", number)]))

    def read(world: World) -> tuple[list[int], float]:
        clock = [0.0]

        def wait(after: object, timeout_seconds: float, *, partitions: object) -> bool:
            clock[0] += timeout_seconds
            return False

        own = LogInMemory(2)
        own.entries, own.wait = log.entries, wait  # type: ignore[method-assign]
        reader = JoinedEvents(
            own,
            options(),
            "click",
            batch_rows=4,
            is_replay=False,
            set_aside=nobody,
            world=world,
            now=lambda: clock[0],
        )
        batches = reader.batches()
        sizes = [next(batches).num_rows for _ in range(10)]
        return sizes, clock[0]

    (busy, _), (quiet, waited) = in_threads(2, read)
    assert (busy, quiet) == ([4] * 10, [0] * 10)
    assert waited == 0.0

"""The clock of event time: median of the batch, never back, never far ahead at once; strays are counted."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embtables import CollisionlessTable, EmbeddingBagCollection, Feature, Tables
from embtables.errors import ConfigError
from embtables.schema import Sgd
from embtables.tables.clock import LAST_SECOND, MICROSECONDS, EventClock
from tests.embtables.lookup.collections_for_tests import kjt

DAY = 86_400


def times(*seconds: float) -> torch.Tensor:
    return torch.tensor([int(s * MICROSECONDS) for s in seconds], dtype=torch.int64)


def test_one_stray_row_moves_nothing() -> None:
    clock = EventClock(max_step_seconds=DAY)
    assert clock.observe(times(1000, 1001, 1002)) == 1001
    assert clock.observe(times(1003, 1003 + 90 * DAY, 1003)) == 1003
    assert (clock.held_back, clock.late) == (0, 0)


def test_a_batch_from_before_does_not_turn_the_clock_back() -> None:
    clock = EventClock(max_step_seconds=DAY)
    clock.observe(times(5000))
    assert clock.observe(times(100, 200, 300)) == 5000
    assert clock.late == 1


def test_a_gap_of_a_year_is_walked_in_bounded_steps() -> None:
    clock = EventClock(max_step_seconds=DAY)
    clock.observe(times(10 * DAY))
    assert clock.observe(times(375 * DAY)) == 11 * DAY
    batches = 1
    while clock.now < 375 * DAY:
        clock.observe(times(375 * DAY))
        batches += 1
    assert batches == 365
    assert clock.held_back == 364


def test_an_empty_batch_and_the_ends_of_time() -> None:
    clock = EventClock(max_step_seconds=2**40)
    assert clock.observe(torch.empty(0, dtype=torch.int64)) == 0
    assert clock.observe(times(-5)) == 0
    clock.observe(times(1))
    assert clock.observe(torch.tensor([2**63 - 1])) == LAST_SECOND


@given(st.lists(st.lists(st.integers(0, 10**9), max_size=5), max_size=20), st.integers(1, 10**6))
def test_it_never_goes_back_nor_further_than_a_step(batches: list[list[int]], step: int) -> None:
    clock = EventClock(max_step_seconds=step)
    for seconds in batches:
        before = clock.now
        now = clock.observe(times(*seconds))
        assert now >= before
        assert before == 0 or now <= before + step


@pytest.mark.parametrize("store", ["host", "reference"])
def test_a_row_is_fresh_in_the_first_batch_after_a_gap(store: str) -> None:
    table = CollisionlessTable(
        name="t", dim=4, optimizer=Sgd(learning_rate=1.0), ttl_seconds=60, max_clock_step_seconds=10**6
    )
    tables = Tables([table], [Feature(name="a", table="t")], seed=0, row_store=store)  # type: ignore[arg-type]
    view = EmbeddingBagCollection.over(tables)
    batch = kjt(["a"], 6, 5)
    with pytest.raises(ConfigError, match=r"table t: has ttl_seconds: call advance\(event_time_us\)"):
        tables.step()
    tables.advance(times(1000))
    fresh = view(batch).values()
    fresh.sum().backward()
    tables.step()
    tables.advance(times(1060))
    assert not torch.equal(view(batch).values(), fresh)
    tables.step()
    tables.advance(times(1121))
    assert torch.equal(view(batch).values(), fresh)
    stats = tables.stats()["t"]
    assert stats.rows == len(set(batch.values().tolist()))
    if store == "host":
        assert stats.counts["expired"] == stats.rows
        assert tables.row_quantiles("t")["age"] == [0] * 5
        assert stats.load_factor is not None
        assert 0 < stats.load_factor < 1

"""Statistics of keys, against plain counting; growth, against what a log then holds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embtables.keyspace import NUM_BUCKETS, buckets_of
from embtables.pipelines.plan.keys import KeySample, busiest, estimate, owner_loads
from embtables.schema import MinCount
from tests.pipelines.plan.plan_for_tests import keys, table


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 999), each=st.integers(0, 5), part=st.integers(1, 40), values=st.integers(1, 300))
def test_distinct_keys_of_parts_are_counted(seed: int, each: int, part: int, values: int) -> None:
    sample = keys(np.random.default_rng(seed), 40, each, values, 20)
    rows = [sample.keys[sample.rows == row] for row in range(40)]
    parts = [np.concatenate(rows[at : at + part]) for at in range(0, 40 // part * part, part)]
    assert sample.distinct(part) == pytest.approx(np.mean([len(np.unique(p)) for p in parts]))


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 999), ranks=st.sampled_from([1, 2, 3, 7, 64, 1024]), part=st.integers(1, 20))
def test_owners_are_asked_for_what_the_parts_ask(seed: int, ranks: int, part: int) -> None:
    sample = keys(np.random.default_rng(seed), 40, 3, 100, 20)
    mean, variance = owner_loads(sample.spread(part, 7), ranks)
    assert mean.sum() == pytest.approx(ranks * sample.distinct(part))
    assert (variance >= 0).all()
    assert busiest(mean, variance) >= 1.0


def test_a_hot_key_loads_its_owner() -> None:
    """One key in every row, of 4 owners: it alone is asked for by all."""
    hot = KeySample(np.full(400, 5), np.arange(400), 400, 100)
    mean, variance = owner_loads(hot.spread(10, 3), 4)
    owner = int(buckets_of(np.array([5]), 3)[0]) * 4 // NUM_BUCKETS
    assert mean.tolist() == [4.0 if rank == owner else 0.0 for rank in range(4)]
    assert busiest(mean, variance) == pytest.approx(4.0, rel=0.01)


def test_the_busiest_owner_of_steps_is_predicted() -> None:
    """Expected greatest load of 16 owners, against 200 batches that are dealt out."""
    rng = np.random.default_rng(0)
    ranks, part, batches = 16, 64, 200
    drawn = (rng.zipf(1.3, ranks * part * batches) % 5000).astype(np.int64)
    sample = KeySample(drawn, np.arange(len(drawn)), len(drawn), ranks * part)
    owners = buckets_of(drawn, 1).astype(np.int64) * ranks // NUM_BUCKETS
    found = []
    for batch in range(batches):
        loads = np.zeros(ranks)
        for rank in range(ranks):
            own = slice((batch * ranks + rank) * part, (batch * ranks + rank + 1) * part)
            first = np.unique(drawn[own], return_index=True)[1]
            loads += np.bincount(owners[own][first], minlength=ranks)
        found.append(loads.max() / loads.mean())
    assert busiest(*owner_loads(sample.spread(part, 1), ranks)) == pytest.approx(np.mean(found), rel=0.05)


@pytest.mark.parametrize("exponent", [0.6, 1.0, 1.4])
def test_zipf_exponent_is_found(exponent: float) -> None:
    rng = np.random.default_rng(0)
    chances = np.arange(1, 2001) ** -exponent
    drawn = rng.choice(2000, 400_000, p=chances / chances.sum()).astype(np.int64)
    sample = KeySample(drawn, np.arange(len(drawn)), len(drawn), 1000)
    assert sample.zipf_exponent() == pytest.approx(exponent, abs=0.05)


def _log(tail: bool) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    rng = np.random.default_rng(1)
    if tail:
        return (rng.pareto(0.7, 200_000) * 100).astype(np.int64)
    return rng.integers(0, 20_000, 200_000)


@pytest.mark.parametrize(("tail", "how"), [(True, "power law"), (False, "Chao")])
@pytest.mark.parametrize("count", [1, 3])
def test_rows_at_the_end_of_the_log_are_predicted(tail: bool, how: str, count: int) -> None:
    """A quarter of the log predicts its rows: where ids never end, and where all have come."""
    log = _log(tail)
    seen = KeySample(log[:50_000], np.arange(50_000), 50_000, 1000)
    config = table("t", admission=MinCount(count=count))
    found = estimate(config, seen, len(log), 1, None)
    counts = np.unique(log, return_counts=True)[1]
    assert found.rows == pytest.approx((counts >= count).sum(), rel=0.15)
    assert found.low <= found.rows <= found.high
    if count == 1:
        assert found.how == how
        assert found.error is not None
        assert found.error < 0.1


def test_rows_are_those_of_the_log_where_all_was_read() -> None:
    log = _log(tail=True)
    sample = KeySample(log, np.arange(len(log)), len(log), 1000)
    counts = np.unique(log, return_counts=True)[1]
    assert estimate(table("t"), sample, len(log), 1, None).rows == len(counts)
    twice = estimate(table("t", admission=MinCount(count=2)), sample, len(log), 1, None)
    assert (twice.rows, twice.waiting) == ((counts >= 2).sum(), (counts == 1).sum())
    again = estimate(table("t", admission=MinCount(count=2)), sample, len(log), 2, None)
    assert again.rows == len(counts)  # in the second epoch they come again


def test_limits_bound_the_rows() -> None:
    log = np.arange(10_000) // 2
    sample = KeySample(log, np.arange(10_000), 10_000, 100)
    limited = estimate(table("t", max_rows=700), sample, 10_000, 1, None)
    assert (limited.rows, limited.how) == (700.0, "max_rows")
    within = estimate(table("t", ttl_seconds=10), sample, 10_000, 1, 600.0)
    assert within.rows == 300.0  # two log rows to a key
    assert within.how.startswith("ttl")

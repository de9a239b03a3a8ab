"""Evictions above a limit that parts of a table agree on are those of one store that has all keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from embtables.errors import StateError
from embtables.keyspace import buckets_of
from embtables.rows.host.store import HostRowStore
from embtables.rows.limits import NUM_AGE_BINS, age_bin, enforce, limits_of, oldest_bin
from embtables.rows.protocol import PartStore, Segments
from embtables.rows.reference.store import ReferenceRowStore
from embtables.rows.stored_table import StoredTable
from embtables.rows.stores import PART_STORES
from embtables.schema import Adagrad, CollisionlessTable, MinCount, Normal, Probability, Sgd
from tests.contracts.single import train_rows
from tests.state.ranks_for_tests import ranges

SEED = 11
LARGEST = 2**32 - 1


@dataclass
class Together:
    """Rows or waiting keys of the first table of several stores."""

    stores: Sequence[PartStore]
    waiting: bool

    def number(self) -> int:
        return sum(store.num_held(0)[self.waiting] for store in self.stores)

    def age_bins(self) -> Tensor:
        return torch.stack([store.age_bins(0, self.waiting) for store in self.stores]).sum(dim=0)

    def of_age(self, chosen: int) -> tuple[Tensor, Tensor]:
        found = [store.of_age(0, self.waiting, chosen) for store in self.stores]
        return torch.cat([seen for seen, _ in found]), torch.cat([mixes for _, mixes in found])

    def evict(self, chosen: int, seen: int, mix: int) -> None:
        for store in self.stores:
            store.evict(0, self.waiting, chosen, seen, mix)


def keep_limits(stores: Sequence[PartStore], table: CollisionlessTable) -> None:
    max_rows, max_waiting = limits_of(table)
    if max_rows is not None:
        enforce(Together(stores, False), max_rows)
    enforce(Together(stores, True), max_waiting)


def step(store: PartStore, keys: Tensor, counts: Tensor | None) -> None:
    segments = Segments((0,), np.array([0, len(keys)]), np.array([0]))
    kept = store.train_owned(segments, keys, counts)
    kept.add_message(keys.sign().float(), np.ones(1, np.bool_))
    store.update(1.0)


def held(store: PartStore) -> dict[int, tuple[Any, ...]]:
    """By key: when it was seen, and its row or its count."""
    state = store.key_state(0)
    assert state is not None
    rows = store.read(0, "weight", state.keys).tolist()
    found: dict[int, tuple[Any, ...]] = {}
    for key, seen, row in zip(state.keys.tolist(), state.seen.tolist(), rows, strict=True):
        found[key] = (seen, *row)
    waiting = zip(state.waiting.tolist(), state.waiting_seen.tolist(), state.waiting_counts.tolist(), strict=True)
    return found | {key: (seen, "waits", count) for key, seen, count in waiting}


admissions = st.sampled_from(
    [
        None,
        MinCount(count=3),
        MinCount(count=2, max_waiting=9),
        MinCount(count=4, max_waiting=40),
        MinCount(count=2, max_waiting=2000, counting="sketch"),
        Probability(probability=0.4),
    ]
)
keys_of_a_step = st.lists(st.integers(-40, 120), max_size=12, unique=True)
steps_taken = st.lists(st.tuples(keys_of_a_step, st.integers(0, 4)), min_size=10, max_size=30)


@pytest.mark.parametrize("make", [HostRowStore, ReferenceRowStore])
@settings(deadline=None, max_examples=25)
@given(
    admission=admissions,
    ttl=st.sampled_from([None, 3, 12, 300]),
    max_rows=st.sampled_from([None, 12, 33, 64]),
    cuts=st.lists(st.integers(1, 1023), unique=True, min_size=1, max_size=4),
    taken=steps_taken,
    seed=st.integers(0, 99),
)
def test_parts_hold_what_the_whole_holds(
    make: Callable[[Sequence[StoredTable], Sequence[int]], PartStore],
    admission: Any,
    ttl: int | None,
    max_rows: int | None,
    cuts: list[int],
    taken: list[tuple[list[int], int]],
    seed: int,
) -> None:
    config = CollisionlessTable(
        name="t",
        dim=1,
        optimizer=Sgd(learning_rate=0.5),
        initializer=Normal(std=0.1),
        admission=admission,
        ttl_seconds=ttl,
        max_rows=max_rows,
    )
    table, rng, now = StoredTable(config, SEED), np.random.default_rng(seed), 0
    whole = HostRowStore([table], [0])
    owned = ranges(cuts)
    parts = [make([replace(table, buckets=buckets)], [0]) for buckets in owned]
    assert {store.draw_cut() for store in (whole, *parts)} == {1}
    for number, (keys, passed) in enumerate(taken):
        now += 1 if ttl is None else passed
        for store in (whole, *parts):
            store.advance(0, now)
        asked, counts = torch.tensor(keys, dtype=torch.int64), torch.from_numpy(rng.integers(1, 4, len(keys), np.int32))
        of = buckets_of(asked.numpy(), SEED)
        step(whole, asked, counts)
        for buckets, store in zip(owned, parts, strict=True):
            mine = torch.from_numpy((of >= buckets[0]) & (of < buckets[1]))
            step(store, asked[mine], counts[mine])
        keep_limits(parts, config)
        if number % 4 < 3 and number + 1 < len(taken):  # to list all keys takes longer than a step
            continue
        together: dict[int, tuple[Any, ...]] = {}
        for store in parts:
            together |= held(store)
        expected = held(whole)
        assert together.keys() == expected.keys()
        for key, found in together.items():
            assert (
                found == pytest.approx(expected[key], abs=1e-6) if make is ReferenceRowStore else found == expected[key]
            )
    if make is HostRowStore:
        for name in ("admitted", "evicted", "waiting_evicted", "cold_reads", "surplus"):
            assert sum(store.figures(0)[name] for store in parts) == whole.figures(0)[name], name
    if ttl is None:
        lost = torch.cat([store.changes(0, 1).tombstones for store in parts])
        assert torch.equal(lost.sort().values, whole.changes(0, 1).tombstones)


@pytest.mark.parametrize("make", [HostRowStore, ReferenceRowStore])
def test_a_part_alone_keeps_no_limit_but_its_ttl(
    make: Callable[[Sequence[StoredTable], Sequence[int]], PartStore],
) -> None:
    config = CollisionlessTable(name="t", dim=1, optimizer=Sgd(learning_rate=0.5), max_rows=32, ttl_seconds=10)
    store = make([StoredTable(config, SEED, (0, 1023))], [0])
    for now in range(4):
        store.advance(0, now)
        step(store, torch.arange(10 * now, 10 * now + 10), None)
    assert store.num_held(0) == (40, 0)
    assert len(held(store)) == 40
    keep_limits([store], config)
    assert len(held(store)) == 31
    assert set(range(10, 40)) < set(held(store))
    store.advance(0, 12)
    assert int(store.age_bins(0, False).sum()) == len(held(store)) == 20
    assert store.num_held(0) == (20, 0)
    rows, kept = train_rows(store, 0, torch.tensor([1]))
    kept.add_gradients([torch.ones_like(rows)])
    with pytest.raises(StateError, match="between two steps"):
        store.evict(0, False, 0, 0, 0)


def test_both_stores_have_the_same_bins() -> None:
    config = CollisionlessTable(name="t", dim=1, optimizer=Adagrad(learning_rate=0.5), admission=MinCount(count=2))
    stores = [make([StoredTable(config, SEED, (0, 1023))], [0]) for make in PART_STORES.values()]
    edges = [0, *(2**n for n in range(32)), *(2**n + 2**n // 64 * k for n in range(7, 32) for k in (1, 63)), LARGEST]
    ages = sorted({age for edge in edges for age in (edge - 1, edge, edge + 1) if 0 <= age <= LARGEST}, reverse=True)
    for store in stores:
        for key, age in enumerate(ages):
            store.advance(0, LARGEST - age)
            step(store, torch.tensor([key, key] if key % 2 else [key]), None)
    assert sum(store.num_held(0)[0] for store in stores) == 2 * (len(ages) // 2)
    for waiting in (False, True):
        host, reference = (store.age_bins(0, waiting) for store in stores)
        assert torch.equal(host, reference)
        assert int(host.sum()) == len(ages) // 2 + (waiting and len(ages) % 2)
        for chosen in host.nonzero()[:, 0].tolist():
            native, plain = ({*zip(*map(Tensor.tolist, s.of_age(0, waiting, chosen)), strict=True)} for s in stores)
            assert native == plain
            assert len(plain) == host[chosen]
    bins = [age_bin(age) for age in ages[::-1]]
    assert bins == sorted(bins)
    assert bins[0] == 0
    assert bins[-1] == NUM_AGE_BINS - 1


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.integers(0, 80))
def test_evictions_end_in_the_bin_of_the_last_that_goes(counts: list[int], most: int) -> None:
    oldest_first = [n for n in reversed(range(len(counts))) for _ in range(counts[n])]
    found = oldest_bin(torch.tensor(counts), most)
    if len(oldest_first) <= most:
        assert found is None
        return
    gone = oldest_first[: len(oldest_first) - (most - most // 32)]
    assert found == (gone[-1], gone.count(gone[-1]))

"""What every store of collisionless tables keeps: admission, expiry, limits, cold rows, refused gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from embtables.errors import StateError
from embtables.ids.mix import seeded_mix
from embtables.rows.initial import initial_rows
from embtables.rows.protocol import Lookup, RowStore
from embtables.rows.stored_table import StoredTable
from embtables.schema import (
    Adagrad,
    Adam,
    CollisionlessTable,
    MinCount,
    Normal,
    Optimizer,
    Probability,
    RowwiseAdagrad,
    Sgd,
)
from tests.contracts.single import gather, train_rows

SEED = 7
DIM = 8
OPTIMIZERS: list[Optimizer] = [
    Sgd(learning_rate=0.1),
    Adagrad(learning_rate=0.1),
    RowwiseAdagrad(learning_rate=0.1),
    Adam(learning_rate=0.1),
]


def table(**changes: Any) -> StoredTable:
    config = {"name": "t", "dim": DIM, "optimizer": Adagrad(learning_rate=0.1), "initializer": Normal(std=0.1)}
    return StoredTable(CollisionlessTable(**{**config, **changes}), SEED)


def fresh(keys: list[int]) -> torch.Tensor:
    return torch.from_numpy(initial_rows(Normal(std=0.1), SEED, np.array(keys, np.int64), DIM))


class CollisionlessContract:
    """Subclass and define `build`."""

    def build(self, stored: list[StoredTable], feature_tables: Sequence[int]) -> RowStore:
        raise AssertionError("define build")

    def one(self, **changes: Any) -> RowStore:
        return self.build([table(**changes)], [0])

    def see(self, store: RowStore, keys: list[int], *, learn: float = 0.0) -> torch.Tensor:
        """One step of training that reads the keys, and gives each occurrence the gradient `learn`."""
        rows, kept = train_rows(store, 0, torch.tensor(keys, dtype=torch.int64))
        kept.add_gradients([torch.full_like(rows, learn)])
        store.update(1.0)
        return rows

    def rows_of(self, store: RowStore) -> list[int]:
        state = store.key_state(0)
        assert state is not None
        return [int(key) for key in state.keys]

    def test_every_key_has_a_row_of_its_own_from_its_first_sight(self) -> None:
        store = self.one()
        keys = [5, -(2**63), 2**63 - 1, -1, 0, 5]
        assert torch.equal(self.see(store, keys, learn=1.0), fresh(keys))
        assert self.rows_of(store) == sorted(set(keys))
        learned = store.read(0, "weight", torch.tensor(sorted(set(keys))))
        assert len({tuple(row.tolist()) for row in learned}) == 5
        # A key never seen reads zeros and gets no row by being read.
        assert not gather(store, 0, torch.tensor([77])).any()
        assert 77 not in self.rows_of(store)

    @pytest.mark.parametrize("count", [1, 2, 5, 65_535])
    def test_a_key_is_admitted_at_exactly_its_nth_occurrence(self, count: int) -> None:
        store = self.one(admission=MinCount(count=count))
        if count > 1:
            rows = self.see(store, [9] * (count - 1))
            assert not rows.any()
            assert self.rows_of(store) == []
        # The n-th occurrence and everything else in the same lookup read the new row.
        rows = self.see(store, [3, 9, 9])
        assert torch.equal(rows[1], fresh([9])[0])
        assert torch.equal(rows[2], rows[1])
        assert self.rows_of(store) == ([3, 9] if count == 1 else [9])

    def test_occurrences_are_counted_over_all_features_of_a_lookup_first(self) -> None:
        store = self.build([table(admission=MinCount(count=3))], [0, 0])
        keys, offsets = torch.tensor([4, 4, 4]), torch.tensor([0, 1, 3])
        out, _ = store.train_pooled(Lookup((0, 1), keys, offsets, None, 1))
        assert torch.allclose(out, torch.cat([fresh([4]), 2 * fresh([4])], dim=1))

    def test_reading_for_inference_changes_nothing(self) -> None:
        store = self.one(admission=MinCount(count=2), ttl_seconds=10)
        store.advance(0, 100)
        self.see(store, [1, 1, 2])
        before = store.key_state(0)
        store.advance(0, 105)
        for _ in range(5):
            gather(store, 0, torch.tensor([1, 2, 3]))
        store.update(1.0)
        after = store.key_state(0)
        assert before is not None
        assert after is not None
        assert torch.equal(after.seen, before.seen)
        assert torch.equal(after.waiting_counts, before.waiting_counts)
        assert torch.equal(after.waiting, before.waiting)

    def test_admission_by_probability(self) -> None:
        store = self.one(admission=Probability(probability=0.3))
        keys = list(range(20_000))
        self.see(store, keys)
        first = set(self.rows_of(store))
        assert len(first) / len(keys) == pytest.approx(0.3, abs=0.02)
        # Drawn anew at the next step, and by the key alone, not by its place in the batch.
        self.see(store, keys[::-1])
        second = set(self.rows_of(store))
        assert first < second
        assert len(second) / len(keys) == pytest.approx(1 - 0.7**2, abs=0.02)

    @pytest.mark.parametrize("optimizer", OPTIMIZERS)
    @pytest.mark.parametrize("swept", [False, True])
    def test_a_row_past_its_ttl_is_fresh_and_one_at_its_ttl_is_not(self, optimizer: Optimizer, swept: bool) -> None:
        store = self.one(ttl_seconds=10, optimizer=optimizer)
        store.advance(0, 100)
        self.see(store, [1, 2], learn=1.0)
        trained = store.read(0, "weight", torch.tensor([1]))
        store.advance(0, 110)
        assert torch.equal(gather(store, 0, torch.tensor([1])), trained)
        assert torch.equal(self.see(store, [1]), trained)
        store.advance(0, 111)
        assert not gather(store, 0, torch.tensor([2])).any()
        assert self.rows_of(store) == [1]
        for _ in range(200 if swept else 0):
            store.update(1.0)
        assert torch.equal(self.see(store, [2]), fresh([2]))
        for name in store.state_names(0):
            if name != "weight":
                assert not store.read(0, name, torch.tensor([2])).any(), name

    def test_reading_for_inference_prolongs_no_life(self) -> None:
        store = self.one(ttl_seconds=10)
        store.advance(0, 100)
        self.see(store, [1], learn=1.0)
        store.advance(0, 109)
        assert gather(store, 0, torch.tensor([1])).any()
        store.advance(0, 111)
        assert not gather(store, 0, torch.tensor([1])).any()
        assert torch.equal(self.see(store, [1]), fresh([1]))

    def test_an_expired_row_that_must_wait_again_gives_its_place_away_clean(self) -> None:
        store = self.one(ttl_seconds=10, admission=MinCount(count=2))
        store.advance(0, 100)
        self.see(store, [1, 1], learn=3.0)
        store.advance(0, 200)
        assert not self.see(store, [1]).any()
        assert self.rows_of(store) == []
        assert torch.equal(self.see(store, [5, 5], learn=1.0)[0], fresh([5])[0])
        assert torch.equal(self.see(store, [1]), fresh([1]))

    def test_waiting_keys_expire_and_are_bounded(self) -> None:
        store = self.one(admission=MinCount(count=2, max_waiting=64), ttl_seconds=10)
        store.advance(0, 100)
        self.see(store, [1])
        store.advance(0, 111)
        assert not self.see(store, [1]).any()  # the first occurrence is forgotten
        for start in range(1000, 6000, 500):
            self.see(store, list(range(start, start + 500)))
            state = store.key_state(0)
            assert state is not None
            assert len(state.waiting) <= 64
        assert self.rows_of(store) == []

    @pytest.mark.parametrize("count", [2, 15, 16, 255, 256])
    def test_a_sketch_admits_no_key_late_and_few_early(self, count: int) -> None:
        room = 30_000
        store = self.one(admission=MinCount(count=count, max_waiting=room, counting="sketch"), dim=1)
        # As many keys as a half is sure to remember, seen once less than it takes.
        waiting = list(range(room // 3))
        self.see(store, waiting * (count - 1) if count < 20 else [0] * (count - 1))
        early = self.rows_of(store)
        assert len(early) < 0.03 * len(waiting)
        again = waiting if count < 20 else [0]
        self.see(store, again)
        assert self.rows_of(store) == again

    def test_a_sketch_forgets_after_its_ttl(self) -> None:
        store = self.one(admission=MinCount(count=3, counting="sketch"), ttl_seconds=10)
        for now, key in ((100, 1), (105, 1), (112, 2), (130, 1), (131, 2)):
            store.advance(0, now)
            self.see(store, [key])
        assert self.rows_of(store) == []
        self.see(store, [1])
        assert self.rows_of(store) == []
        self.see(store, [1])
        assert self.rows_of(store) == [1]

    def test_a_saved_sketch_goes_on_counting(self) -> None:
        admission = MinCount(count=3, max_waiting=20_000, counting="sketch")
        first, second = self.one(admission=admission), self.one(admission=admission)
        keys = list(range(5_000))
        for store in (first, second):
            self.see(store, keys[:3000])
            self.see(store, keys[1000:])
        restored = self.one(admission=admission)
        restored.apply(0, first.capture(0, None).content())
        for store in (restored, second):
            self.see(store, keys[2000:4000])
        assert self.rows_of(restored) == self.rows_of(second)
        assert len(self.rows_of(second)) > 900

    def test_above_max_rows_the_least_recently_seen_go(self) -> None:
        store = self.one(max_rows=64)
        for now, start in enumerate(range(0, 192, 32), start=1):
            store.advance(0, now)
            self.see(store, list(range(start, start + 32)), learn=1.0)
            assert len(self.rows_of(store)) <= 64
        assert set(self.rows_of(store)) >= set(range(160, 192))
        assert min(self.rows_of(store)) >= 96
        # What was evicted comes back fresh.
        assert torch.equal(self.see(store, [0]), fresh([0]))

    def test_ties_are_broken_by_the_hash_of_the_key_not_by_where_rows_lie(self) -> None:
        keys = list(range(100, 140))
        left = []
        for order in (keys, keys[::-1]):
            store = self.one(max_rows=32)
            store.advance(0, 5)
            for start in range(0, 40, 10):
                self.see(store, order[start : start + 10])
            left.append(self.rows_of(store))
        mixed = seeded_mix(np.array(keys), SEED)
        assert left[0] == left[1] == sorted(np.array(keys)[np.argsort(mixed)[40 - 31 :]].tolist())

    def test_a_batch_larger_than_max_rows_reads_cold_rows_for_the_rest(self) -> None:
        store = self.one(max_rows=10)
        keys = list(range(100))
        rows = self.see(store, keys, learn=1.0)
        assert torch.equal(rows[:10], fresh(keys[:10]))
        assert not rows[10:].any()
        assert len(self.rows_of(store)) <= 10
        assert torch.isfinite(store.read(0, "weight", torch.tensor(self.rows_of(store)))).all()

    def test_rows_that_a_batch_reads_count_before_new_ones(self) -> None:
        store = self.one(max_rows=8)
        self.see(store, [0, 1, 2, 3, 4, 5])
        # Six of eight rows are read; of the three new keys two fit. The twelve occurrences are nine keys.
        rows = self.see(store, [10, 0, 1, 1, 1, 2, 11, 3, 4, 5, 12, 12])
        assert torch.equal(rows[[0, 6]], fresh([10, 11]))
        assert not rows[10:].any()
        assert 12 not in self.rows_of(store)
        # Rows that nothing read give way to keys that do not exceed the limit by themselves.
        rows = self.see(store, [20, 21, 22, 23, 24, 25, 26, 27])
        assert torch.equal(rows, fresh(list(range(20, 28))))

    def test_changes_since_a_cut_and_tombstones(self) -> None:
        store = self.one(max_rows=64)
        self.see(store, list(range(40)), learn=1.0)
        first = store.draw_cut()
        assert first == 1
        assert self.changed_and_lost(store, first) == ([], [])
        self.see(store, [3, 50], learn=1.0)
        # Seen without a gradient, or written: changed all the same.
        train_rows(store, 0, torch.tensor([7]))
        store.update(1.0)
        store.write(0, "weight", torch.tensor([9]), torch.zeros(1, DIM))
        gather(store, 0, torch.tensor([11]))
        assert self.changed_and_lost(store, first) == ([3, 7, 9, 50], [])
        second = store.draw_cut()
        assert self.changed_and_lost(store, second) == ([], [])
        store.advance(0, 10)
        self.see(store, list(range(100, 160)), learn=1.0)
        changed, lost = self.changed_and_lost(store, second)
        assert changed == list(range(100, 160))
        assert set(lost) == {*range(40), 50} - set(self.rows_of(store))
        assert len(lost) > 30
        assert self.changed_and_lost(store, first)[1] == lost
        # A key that comes back is a row again, and no tombstone.
        self.see(store, [lost[0]])
        changed, still = self.changed_and_lost(store, second)
        assert lost[0] in changed
        assert lost[0] not in still

    def changed_and_lost(self, store: RowStore, after: int) -> tuple[list[int], list[int]]:
        changes = store.changes(0, after)
        return changes.keys.tolist(), changes.tombstones.tolist()

    def test_a_cut_lies_between_steps_and_must_have_been_drawn(self) -> None:
        store = self.one()
        rows, kept = train_rows(store, 0, torch.tensor([1]))
        kept.add_gradients([torch.ones_like(rows)])
        with pytest.raises(StateError, match="between two steps"):
            store.draw_cut()
        store.discard()
        for after in (0, 1, -1):
            with pytest.raises(StateError, match=f"cut {after} was not drawn"):
                store.changes(0, after)
        assert store.draw_cut() == 1
        with pytest.raises(StateError, match="cut 2 was not drawn"):
            store.changes(0, 2)

    def test_a_trained_cold_row_is_shared_and_learns(self) -> None:
        store = self.one(admission=MinCount(count=3), cold_row="trained", optimizer=Sgd(learning_rate=0.5))
        self.see(store, [1, 2], learn=1.0)
        expected = torch.full((1, DIM), -0.5 * 2)
        assert torch.equal(gather(store, 0, torch.tensor([1])), expected)
        assert torch.equal(gather(store, 0, torch.tensor([99])), expected)
        # A row starts from its own initial values, not from the cold row.
        assert torch.equal(self.see(store, [1, 1])[0], fresh([1])[0])

    @pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
    def test_a_gradient_that_is_not_finite_leaves_its_row_and_no_other(self, bad: float) -> None:
        store = self.one()
        rows, kept = train_rows(store, 0, torch.tensor([1, 2]))
        gradient = torch.ones_like(rows)
        gradient[0, 3] = bad
        kept.add_gradients([gradient])
        store.update(1.0)
        assert torch.equal(store.read(0, "weight", torch.tensor([1])), fresh([1]))
        assert not torch.equal(store.read(0, "weight", torch.tensor([2])), fresh([2]))
        assert store.figures(0)["refused_gradients"] == 1

    def test_writing_needs_a_row_and_the_clock_waits_for_the_step(self) -> None:
        store = self.one()
        self.see(store, [1])
        store.write(0, "weight", torch.tensor([1]), torch.full((1, DIM), 2.0))
        assert torch.equal(gather(store, 0, torch.tensor([1])), torch.full((1, DIM), 2.0))
        with pytest.raises(StateError, match="key 5 has no row"):
            store.write(0, "weight", torch.tensor([1, 5]), torch.zeros(2, DIM))
        rows, kept = train_rows(store, 0, torch.tensor([1]))
        kept.add_gradients([torch.ones_like(rows)])
        with pytest.raises(StateError, match="advance comes before"):
            store.advance(0, 5)

    def test_growth_keeps_every_row(self) -> None:
        store = self.one(dim=DIM)
        seen: list[int] = []
        for start in range(0, 20_000, 4_000):
            keys = list(range(start, start + 4_000))
            self.see(store, keys, learn=0.01 * (1 + start))
            seen += keys
        assert self.rows_of(store) == seen
        rows = store.read(0, "weight", torch.tensor(seen))
        moved = rows - fresh(seen)
        # Adagrad's first step is the learning rate, whatever the gradient.
        assert torch.allclose(moved, torch.full_like(moved, -0.1), atol=1e-5)

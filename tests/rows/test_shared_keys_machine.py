"""Two native tables that share one map of keys, against two dicts that each have their own: through any history the
same keys have the same rows in both tables of both stores."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from embtables.native import _core
from embtables.rows.host.store import HostRowStore
from embtables.rows.protocol import Lookup
from embtables.rows.reference.store import ReferenceRowStore
from embtables.rows.stored_table import StoredTable
from embtables.schema import CollisionlessTable, MinCount, Normal, Optimizer, Probability, Zeros
from tests.contents import flat_content, same
from tests.rows.test_collisionless_machine import BAGS, KEYS, OPTIMIZERS, SEED, check_changed, lookup_of

BOTH = (0, 1)


class SharedKeys(RuleBasedStateMachine):
    isa = "scalar"

    @initialize(
        optimizers=st.tuples(st.sampled_from(OPTIMIZERS), st.sampled_from(OPTIMIZERS)),
        admission=st.sampled_from(
            [
                None,
                MinCount(count=2, max_waiting=4),
                MinCount(count=2, max_waiting=2000, counting="sketch"),
                Probability(probability=0.5),
            ]
        ),
        ttl=st.sampled_from([None, 3]),
        max_rows=st.sampled_from([None, 5, 40]),
        cold=st.sampled_from(["zeros", "trained"]),
    )
    def make(self, optimizers: tuple[Optimizer, Optimizer], admission: Any, ttl: Any, max_rows: Any, cold: Any) -> None:
        same_keys: dict[str, Any] = {
            "admission": admission,
            "ttl_seconds": ttl,
            "max_rows": max_rows,
            "cold_row": cold,
        }
        deep = CollisionlessTable(name="t", dim=5, optimizer=optimizers[0], initializer=Normal(std=0.1), **same_keys)
        linear = CollisionlessTable(name="linear.t", dim=1, optimizer=optimizers[1], initializer=Zeros(), **same_keys)
        self.ttl, self.decays = ttl, [optimizer.dense_decay > 0.0 for optimizer in optimizers]
        self.stored = [StoredTable(deep, SEED), StoredTable(linear, SEED, keys_of="t")]
        self.reference = ReferenceRowStore(self.stored, [0, 0, 1])
        self.host = self.fresh_host()
        self.rng = np.random.default_rng(5)
        self.pending, self.now = False, 0
        self.cuts: tuple[int, int] | None = None

    def fresh_host(self) -> HostRowStore:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("embtables.rows.host.store.isa", lambda: self.isa)
            return HostRowStore(self.stored, [0, 0, 1])

    @rule(first=BAGS, second=BAGS, weighted=st.booleans(), at_once=st.booleans())
    def train(self, first: list[list[int]], second: list[list[int]], weighted: bool, at_once: bool) -> None:
        lookup = replace(lookup_of(first, second, self.rng if weighted else None), beside=(2, 2))
        expected, kept = self.reference.train_pooled(lookup.repeated())
        out, of_host = self.host.train_pooled(lookup if at_once else lookup.repeated())
        assert torch.allclose(out, expected, rtol=1e-4, atol=1e-5)
        gradient = torch.from_numpy(self.rng.standard_normal(out.shape).astype(np.float32))
        of_weights = kept.add_gradient(gradient, of_weights=True)
        found = of_host.add_gradient(gradient, of_weights=True)
        assert found is not None
        assert of_weights is not None
        both = of_weights.view(2, -1).sum(dim=0)
        assert torch.allclose(found if at_once else found.view(2, -1).sum(dim=0), both, rtol=1e-3, atol=1e-4)
        assert torch.equal(self.host.pooled(lookup), self.host.pooled(lookup.repeated()))
        self.pending = True

    @rule(first=BAGS)
    def lookups_without_backward_are_seen_in_both(self, first: list[list[int]]) -> None:
        keys = torch.tensor([key for bag in first for key in bag], dtype=torch.int64)
        offsets = torch.tensor([0, *np.cumsum([len(bag) for bag in first])])
        lookup = Lookup((0,), keys, offsets, None, 2, beside=(2,))
        self.reference.train_pooled(lookup.repeated())
        self.host.train_pooled(lookup)

    @rule(scale=st.sampled_from([1.0, 0.5]))
    def step(self, scale: float) -> None:
        assert self.host.gradient_norm() == pytest.approx(self.reference.gradient_norm(), rel=1e-4, abs=1e-6)
        self.reference.update(scale)
        self.host.update(scale)
        self.pending = False

    @precondition(lambda self: not self.pending)
    @rule(seconds=st.integers(0, 5))
    def advance(self, seconds: int) -> None:
        self.now += seconds
        for store in (self.reference, self.host):
            for table in BOTH:
                store.advance(table, self.now)

    @precondition(lambda self: not self.pending)
    @rule(keys=st.lists(KEYS, max_size=4))
    def make_rows(self, keys: list[int]) -> None:
        for store in (self.reference, self.host):
            for table in BOTH:
                store.make(table, torch.tensor(keys, dtype=torch.int64))

    @precondition(lambda self: not self.pending)
    @rule(keys=st.lists(KEYS, max_size=4))
    def delete(self, keys: list[int]) -> None:
        for store in (self.reference, self.host):
            for table in BOTH:
                store.delete(table, torch.tensor(keys, dtype=torch.int64))

    @precondition(lambda self: not self.pending)
    @rule()
    def cut(self) -> None:
        before, self.cuts = self.cuts, (self.reference.draw_cut(), self.host.draw_cut())
        if before is not None:
            for table in BOTH:
                expected, found = self.reference.changes(table, before[0]), self.host.changes(table, before[1])
                check_changed(found, expected, self.decays[table])
                if self.ttl is None:  # else rows past it are left to the sweep
                    assert torch.equal(found.tombstones, expected.tombstones)
                self.copy.apply(table, self.host.capture(table, before[1]).content())
        else:
            self.copy = self.fresh_host()
            for table in BOTH:
                self.copy.apply(table, self.host.capture(table, None).content())
        for table in BOTH:
            ours, theirs = (flat_content(s.capture(table, None).content()) for s in (self.host, self.copy))
            assert same(ours, theirs)

    @precondition(lambda self: not self.pending)
    @rule(linear_first=st.booleans())
    def save_and_restore(self, linear_first: bool) -> None:
        self.step(1.0)  # tables are saved between steps
        contents = [self.host.capture(table, None).content() for table in BOTH]
        restored = self.fresh_host()
        for table in reversed(BOTH) if linear_first else BOTH:
            restored.apply(table, contents[table])
        for table in BOTH:
            assert same(flat_content(restored.capture(table, None).content()), flat_content(contents[table]))
        self.host, self.cuts = restored, None

    @precondition(lambda self: not self.pending)
    @rule(table=st.sampled_from(BOTH))
    def clear(self, table: int) -> None:
        self.step(1.0)
        contents = [self.host.capture(number, None).content() for number in BOTH]
        self.host.clear(table)
        for number in BOTH:
            state = self.host.key_state(number)
            assert state is not None
            assert not len(state.keys)
        for number in BOTH:
            self.host.apply(number, contents[number])
        self.cuts = None

    @invariant()
    def both_tables_have_the_keys_that_each_dict_has(self) -> None:
        for table in BOTH:
            expected, found = self.reference.key_state(table), self.host.key_state(table)
            assert expected is not None
            assert found is not None
            for name in ("keys", "seen", "waiting", "waiting_counts", "waiting_seen"):
                assert torch.equal(getattr(found, name), getattr(expected, name)), (table, name)
            assert (found.now, found.steps) == (expected.now, expected.steps)
            for name in self.host.state_names(table):
                ours = self.host.read(table, name, found.keys)
                assert torch.allclose(ours, self.reference.read(table, name, found.keys), rtol=1e-3, atol=1e-5), name


def test_a_delta_keeps_that_a_key_waits_which_lost_its_row() -> None:
    """Found by the machine: the second of the two tables removed the key again."""
    run = SharedKeys()
    admission = MinCount(count=2, max_waiting=4)
    run.make((OPTIMIZERS[0], OPTIMIZERS[0]), admission=admission, ttl=None, max_rows=None, cold="zeros")
    run.cut()
    run.make_rows([0])
    run.delete([0])
    run.lookups_without_backward_are_seen_in_both([[], [0]])
    run.cut()
    waiting = run.copy.key_state(0)
    assert waiting is not None
    assert waiting.waiting.tolist() == [0]


@pytest.mark.parametrize("isa", _core.available_isas())
def test_a_shared_map_is_as_two_of_their_own(isa: str) -> None:
    machine = type("SharedKeys", (SharedKeys,), {"isa": isa})
    run = machine.TestCase
    run.settings = settings(
        deadline=None, max_examples=60, stateful_step_count=30, suppress_health_check=list(HealthCheck)
    )
    run("runTest").runTest()

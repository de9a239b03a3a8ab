"""The native collisionless table against the dict of the reference store, through any sequence of what may happen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from embtables.ids.mix import GOLDEN_GAMMA
from embtables.native import _core
from embtables.rows.host.store import HostRowStore
from embtables.rows.protocol import Capture, Changes, Lookup
from embtables.rows.reference.store import ReferenceRowStore
from embtables.rows.stored_table import StoredTable
from embtables.schema import (
    Adagrad,
    Adam,
    CollisionlessTable,
    DenseDecay,
    MinCount,
    Normal,
    Optimizer,
    Probability,
    RowwiseAdagrad,
    Sgd,
)
from tests.contents import Arrays, flat_content, same
from tests.contracts.single import gather, train_rows

SEED = 77
UNLIKE = ("counts", "sketch")  # the dict keeps no counts of gradients; halves of a sketch may lie the other way round
# The key whose mix is zero, which the map keeps apart, and both ends of the range.
MIXES_TO_ZERO = (-(SEED + 1) * GOLDEN_GAMMA) % 2**64
EDGES = [MIXES_TO_ZERO - 2**64 if MIXES_TO_ZERO >= 2**63 else MIXES_TO_ZERO, -(2**63), 2**63 - 1, -1, 0]
KEYS = st.one_of(st.integers(0, 12), st.sampled_from(EDGES), st.integers(-(2**63), 2**63 - 1))
BAGS = st.lists(st.lists(KEYS, max_size=5), min_size=2, max_size=2)
OPTIMIZERS: list[Optimizer] = [
    Sgd(learning_rate=0.1, weight_decay=0.01),
    Adagrad(learning_rate=0.1),
    RowwiseAdagrad(learning_rate=0.1),
    Adam(learning_rate=0.05),
    RowwiseAdagrad(learning_rate=0.1, weight_decay=DenseDecay(rate=2.0)),
    Adam(learning_rate=0.05, weight_decay=DenseDecay(rate=19.0)),  # so much that the host folds its scale
]


def lookup_of(first: list[list[int]], second: list[list[int]], weights: np.random.Generator | None) -> Lookup:
    """The keys of features 0 and 1, two bags of each, with drawn factors or with none."""
    bags = [*first, *second]
    keys = torch.tensor([key for bag in bags for key in bag], dtype=torch.int64)
    offsets = torch.tensor([0, *np.cumsum([len(bag) for bag in bags])])
    factors = None if weights is None else torch.from_numpy(weights.standard_normal(len(keys)).astype(np.float32))
    return Lookup((0, 1), keys, offsets, factors, 2)


def check_changed(found: Changes, expected: Changes, decays: bool) -> None:
    """Of rows that decay the dict lists all in each step, the host those alone that a step touched."""
    if decays:
        assert set(found.keys.tolist()) <= set(expected.keys.tolist())
    else:
        assert torch.equal(found.keys, expected.keys)


class Machine(RuleBasedStateMachine):
    isa = "scalar"

    @initialize(
        optimizer=st.sampled_from(OPTIMIZERS),
        dim=st.sampled_from([1, 3, 8, 16]),
        admission=st.sampled_from(
            [
                None,
                MinCount(count=2),
                MinCount(count=3, max_waiting=4),
                MinCount(count=2, max_waiting=2000, counting="sketch"),
                MinCount(count=16, max_waiting=4, counting="sketch"),
                Probability(probability=0.5),
            ]
        ),
        ttl=st.sampled_from([None, 3]),
        max_rows=st.sampled_from([None, 5, 40]),
        cold=st.sampled_from(["zeros", "trained"]),
    )
    def make(self, optimizer: Optimizer, dim: int, admission: Any, ttl: Any, max_rows: Any, cold: Any) -> None:
        table = CollisionlessTable(
            name="t",
            dim=dim,
            optimizer=optimizer,
            initializer=Normal(std=0.1),
            admission=admission,
            ttl_seconds=ttl,
            max_rows=max_rows,
            cold_row=cold,
        )
        self.ttl, self.decays = ttl, optimizer.dense_decay > 0.0
        self.stored = [StoredTable(table, SEED)]
        self.reference = ReferenceRowStore(self.stored, [0, 0])
        self.host = self.fresh_host()
        self.rng = np.random.default_rng(5)
        self.pending = False
        self.now = 0
        self.replica: dict[int, torch.Tensor] | None = None  # what follows the host by its changes alone
        self.cuts = (0, 0)  # the last ones of reference and host
        self.captured: tuple[Capture, Arrays] | None = None  # a snapshot that is not copied yet, and what it holds

    def fresh_host(self) -> HostRowStore:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("embtables.rows.host.store.isa", lambda: self.isa)
            return HostRowStore(self.stored, [0, 0])

    @rule(first=BAGS, second=BAGS, weighted=st.booleans())
    def train(self, first: list[list[int]], second: list[list[int]], weighted: bool) -> None:
        lookup = lookup_of(first, second, self.rng if weighted else None)
        gradient = None
        for store in (self.reference, self.host):
            out, kept = store.train_pooled(lookup)
            if gradient is None:
                expected, gradient = out, torch.from_numpy(self.rng.standard_normal(out.shape).astype(np.float32))
            assert torch.allclose(out, expected, rtol=1e-4, atol=1e-5)
            kept.add_gradient(gradient, of_weights=False)
        self.pending = True

    @rule(keys=st.lists(KEYS, max_size=6), learns=st.booleans())
    def train_sequence(self, keys: list[int], learns: bool) -> None:
        asked = torch.tensor(keys, dtype=torch.int64)
        expected, kept = train_rows(self.reference, 0, asked)
        out, of_host = train_rows(self.host, 0, asked)
        assert torch.allclose(out, expected, rtol=1e-4, atol=1e-5)
        if learns:
            kept.add_gradients([torch.ones_like(out)])
            of_host.add_gradients([torch.ones_like(out)])
            self.pending = True

    @rule(keys=st.lists(KEYS, max_size=6))
    def infer(self, keys: list[int]) -> None:
        asked = torch.tensor(keys, dtype=torch.int64)
        expected = gather(self.reference, 0, asked)
        assert torch.allclose(gather(self.host, 0, asked), expected, rtol=1e-4, atol=1e-5)

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
        self.reference.advance(0, self.now)
        self.host.advance(0, self.now)

    @precondition(lambda self: not self.pending)
    @rule()
    def save_and_restore(self) -> None:
        self.step(1.0)  # tables are saved between steps: what a step has read so far is not part of their state
        restored = self.fresh_host()
        restored.apply(0, self.host.capture(0, None).content())
        assert same(
            flat_content(restored.capture(0, None).content()), flat_content(self.host.capture(0, None).content())
        )
        # The dict's own state and the native one's are the same, and each takes the other's.
        crossed = ReferenceRowStore(self.stored, [0, 0])
        crossed.apply(0, self.host.capture(0, None).content())
        ours, theirs = (
            flat_content(self.host.capture(0, None).content()),
            flat_content(crossed.capture(0, None).content()),
        )
        if self.decays:  # whose weights the dict holds at scale 1
            for name in ("columns/weight", "cold/weight"):
                assert np.allclose(ours.pop(name), theirs.pop(name), rtol=1e-6, atol=0.0)
        assert same({n: ours[n] for n in ours if n not in UNLIKE}, {n: theirs[n] for n in theirs if n not in UNLIKE})
        self.host = restored
        self.replica = self.captured = None

    @precondition(lambda self: not self.pending)
    @rule()
    def cut(self) -> None:
        before = self.cuts
        self.cuts = (self.reference.draw_cut(), self.host.draw_cut())
        state = self.host.key_state(0)
        assert state is not None
        rows = dict(zip(state.keys.tolist(), self.host.read(0, "weight", state.keys), strict=True))
        if self.replica is not None:
            delta = self.host.capture(0, before[1]).content()
            self.follower.apply(0, delta)
            found, expected = self.host.changes(0, before[1]), self.reference.changes(0, before[0])
            check_changed(found, expected, self.decays)
            self.replica = {key: row * delta.decay for key, row in self.replica.items()}
            for key in found.tombstones.tolist():
                self.replica.pop(key, None)
            changed = self.host.read(0, "weight", found.keys)
            self.replica |= dict(zip(found.keys.tolist(), changed, strict=True))
            assert not set(found.tombstones.tolist()) & set(rows)
            assert set(rows) <= set(self.replica)
            nearly = 1e-5 if self.decays else 0.0
            assert all(torch.allclose(self.replica[key], row, rtol=nearly, atol=0.0) for key, row in rows.items())
            if self.ttl is None:  # else rows past it are left to the sweep
                assert torch.equal(found.tombstones, expected.tombstones)
                assert set(rows) == set(self.replica)
            ours, theirs = (
                flat_content(self.host.capture(0, None).content()),
                flat_content(self.follower.capture(0, None).content()),
            )
            assert same(ours, theirs)
        else:
            self.follower = self.fresh_host()
            self.follower.apply(0, self.host.capture(0, None).content())
        self.replica = rows

    @precondition(lambda self: not self.pending)
    @rule()
    def begin_a_snapshot(self) -> None:
        self.cuts = (self.reference.draw_cut(), self.host.draw_cut())
        self.replica = None
        held = flat_content(self.host.capture(0, None).content())
        self.captured = self.host.capture(0, None), held

    @precondition(lambda self: self.captured is not None)
    @rule()
    def copy_the_snapshot(self) -> None:
        assert self.captured is not None
        capture, held = self.captured
        assert same(flat_content(capture.content()), held)
        self.captured = None

    @invariant()
    def the_same_keys_with_the_same_rows(self) -> None:
        expected, found = self.reference.key_state(0), self.host.key_state(0)
        assert expected is not None
        assert found is not None
        for name in ("keys", "seen", "waiting", "waiting_counts", "waiting_seen"):
            assert torch.equal(getattr(found, name), getattr(expected, name)), name
        assert (found.now, found.steps) == (expected.now, expected.steps)
        if self.captured is not None:
            return  # another capture would finish it
        contents = [store.capture(0, None).content().unscaled() for store in (self.host, self.reference)]
        cold, expected_cold = (content.cold for content in contents)
        for name in self.host.state_names(0):
            assert np.allclose(cold[name], expected_cold[name], rtol=1e-3, atol=1e-5), name
            ours = self.host.read(0, name, found.keys)
            assert torch.allclose(ours, self.reference.read(0, name, found.keys), rtol=1e-3, atol=1e-5), name


@pytest.mark.parametrize("isa", _core.available_isas())
def test_native_and_dict_agree(isa: str) -> None:
    machine = type("Machine", (Machine,), {"isa": isa})
    run = machine.TestCase
    run.settings = settings(
        deadline=None, max_examples=60, stateful_step_count=30, suppress_health_check=list(HealthCheck)
    )
    run("runTest").runTest()

"""Weight decay that reaches every row in every step, against tables held whole in plain torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embtables.errors import ConfigError
from embtables.rows.fbgemm.store import FbgemmRowStore
from embtables.rows.host.store import HostRowStore
from embtables.rows.protocol import Lookup, RowStore
from embtables.rows.reference.store import ReferenceRowStore
from embtables.rows.stored_table import StoredTable
from embtables.schema import (
    Adagrad,
    Adam,
    CollisionlessTable,
    Constant,
    DenseDecay,
    FixedTable,
    Normal,
    OptimizerConfig,
    RowwiseAdagrad,
    Sgd,
    validate,
)
from tests.contracts.single import train_rows

ROWS, DIM = 12, 4
DECAY = DenseDecay(rate=0.3)
STORES = (HostRowStore, ReferenceRowStore)
Steps = list[tuple[list[int], float]]  # keys that each step looks up, and the factor of its learning rate
STEPS = st.lists(
    st.tuples(st.lists(st.integers(0, ROWS - 1), max_size=6), st.sampled_from([1.0, 0.5, 0.25])), min_size=1, max_size=8
)


def step(store: RowStore, keys: list[int], factor: float, gradient: torch.Tensor) -> None:
    """One step of training that looks these keys up."""
    if keys:
        _, kept = train_rows(store, 0, torch.tensor(keys))
        kept.add_gradients([gradient])
    store.set_learning_rate_factor(factor)
    store.update(1.0)


def gradients(steps: Steps) -> list[torch.Tensor]:
    rng = np.random.default_rng(0)
    return [torch.from_numpy(rng.standard_normal((len(keys), DIM)).astype(np.float32)) for keys, _ in steps]


@pytest.mark.parametrize("make", STORES)
@given(steps=STEPS)
def test_with_sgd_it_is_an_l2_term_over_the_whole_table(make: Any, steps: Steps) -> None:
    table = FixedTable(name="t", dim=DIM, num_rows=ROWS, optimizer=Sgd(learning_rate=0.5, weight_decay=DECAY))
    table = table.model_copy(update={"initializer": Normal(std=1.0)})
    store = make([StoredTable(table, 1)], [0])
    weight = store.read(0, "weight", torch.arange(ROWS)).clone().requires_grad_()
    for (keys, factor), gradient in zip(steps, gradients(steps), strict=True):
        weight.grad = None
        ((weight[torch.tensor(keys, dtype=torch.int64)] * gradient).sum() + 0.15 * weight.square().sum()).backward()
        assert weight.grad is not None
        with torch.no_grad():
            weight -= 0.5 * factor * weight.grad
        step(store, keys, factor, gradient)
    torch.testing.assert_close(store.read(0, "weight", torch.arange(ROWS)), weight.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [Adagrad, RowwiseAdagrad, Adam])
@given(steps=STEPS)
def test_beside_other_optimizers_it_is_apart_from_the_gradient(kind: type[OptimizerConfig], steps: Steps) -> None:
    """Of a row: w *= 1 - lr * rate in each step, then the rule without decay, from the row as it is then."""
    config = kind(learning_rate=0.5, weight_decay=DECAY)
    plain = FixedTable(
        name="t",
        dim=DIM,
        num_rows=ROWS,
        optimizer=kind(learning_rate=0.5),
        initializer=Normal(std=1.0),
    )
    decaying = HostRowStore([StoredTable(plain.model_copy(update={"optimizer": config}), 1)], [0])
    by_hand, every = HostRowStore([StoredTable(plain, 1)], [0]), torch.arange(ROWS)
    for (keys, factor), gradient in zip(steps, gradients(steps), strict=True):
        by_hand.write(0, "weight", every, by_hand.read(0, "weight", every) * (1 - 0.5 * factor * 0.3))
        for store in (decaying, by_hand):
            step(store, keys, factor, gradient)
    for name in decaying.state_names(0):
        torch.testing.assert_close(decaying.read(0, name, every), by_hand.read(0, name, every), rtol=1e-5, atol=1e-6)


@given(steps=STEPS)
def test_the_rows_of_a_table_that_grows_decay_from_their_first_step_on(steps: Steps) -> None:
    table = CollisionlessTable(
        name="t",
        dim=DIM,
        optimizer=Adagrad(learning_rate=0.5, weight_decay=DECAY),
        initializer=Normal(std=1.0),
        max_rows=7,
        cold_row="trained",
    )
    host, reference = (make([StoredTable(table, 1)], [0]) for make in STORES)
    every = torch.arange(ROWS)
    for (keys, factor), gradient in zip(steps, gradients(steps), strict=True):
        for store in (host, reference):
            step(store, keys, factor, gradient)
        assert torch.equal(host.key_state(0).keys, reference.key_state(0).keys)
        torch.testing.assert_close(host.gather([0], [every]), reference.gather([0], [every]), rtol=1e-5, atol=1e-6)


def table_of(grows: bool, optimizer: OptimizerConfig, **options: Any) -> StoredTable:
    common: dict[str, Any] = {"name": "t", "dim": DIM, "optimizer": optimizer, "initializer": Normal(std=1.0)} | options
    return StoredTable(CollisionlessTable(**common) if grows else FixedTable(**common, num_rows=ROWS), 1)


def changed_keys(store: RowStore, cut: int) -> list[int]:
    found: list[int] = store.capture(0, cut).content().keys.tolist()
    return sorted(found)


@pytest.mark.parametrize("grows", [False, True])
def test_a_delta_holds_the_touched_rows_and_is_read_as_all_of_them(grows: bool) -> None:
    stored, every = table_of(grows, Sgd(learning_rate=0.5, weight_decay=DECAY)), torch.arange(3)
    host, other, reference = HostRowStore([stored], [0]), HostRowStore([stored], [0]), ReferenceRowStore([stored], [0])
    for _ in range(2):
        step(host, [0, 1, 2], 1.0, torch.ones(3, DIM))
    cut = host.draw_cut()
    base = host.capture(0, None).content()
    for _ in range(3):
        step(host, [1], 1.0, torch.ones(1, DIM))
    delta = host.capture(0, cut).content()
    assert delta.keys.tolist() == [1] == host.changes(0, cut).keys.tolist()
    assert delta.decay == pytest.approx(0.85**3)
    for content in (base, delta):
        for store in (other, reference):
            store.apply(0, content)
    weight = host.read(0, "weight", every)
    assert torch.equal(other.read(0, "weight", every), weight)
    torch.testing.assert_close(reference.read(0, "weight", every), weight, rtol=1e-6, atol=0.0)
    # Whoever keeps a copy by what has changed.
    copy = dict(zip(base.keys.tolist(), base.unscaled().columns["weight"] * np.float32(delta.decay), strict=True))
    copy |= dict(zip(delta.keys.tolist(), delta.unscaled().columns["weight"], strict=True))
    for key in every.tolist():
        np.testing.assert_allclose(copy[key], weight[key].numpy(), rtol=1e-6)


@pytest.mark.parametrize("grows", [False, True])
@pytest.mark.parametrize("kind", [Sgd, Adam])
@given(steps=STEPS, at=st.integers(0, 8), cuts=st.sets(st.integers(0, 8)))
def test_a_store_made_of_versions_goes_on_with_the_same_bits(
    grows: bool, kind: type[OptimizerConfig], steps: Steps, at: int, cuts: set[int]
) -> None:
    """A rate so high that scales are folded on the way; a snapshot, deltas, a store made of both, more steps."""
    stored = table_of(grows, kind(learning_rate=0.5, weight_decay=DenseDecay(rate=1.98)))
    host, every = HostRowStore([stored], [0]), torch.arange(ROWS)
    reference = ReferenceRowStore([stored], [0])
    versions, cut = [host.capture(0, None).content()], host.draw_cut()
    made: HostRowStore | None = None
    for number, ((keys, factor), gradient) in enumerate(zip(steps, gradients(steps), strict=True)):
        for store in (host, reference) if made is None else (host, reference, made):
            step(store, keys, factor, gradient)
        if number in cuts or number == at:
            versions.append(host.capture(0, cut).content())
            cut = host.draw_cut()
        if number == at:
            made = HostRowStore([stored], [0])
            for version in versions:
                made.apply(0, version)
    for name in host.state_names(0):
        expected = reference.read(0, name, every)
        torch.testing.assert_close(host.read(0, name, every), expected, rtol=1e-5, atol=1e-6)
        assert made is None or torch.equal(made.read(0, name, every), host.read(0, name, every))
    assert made is None or made.capture(0, None).content().scale == host.capture(0, None).content().scale


@pytest.mark.parametrize("grows", [False, True])
def test_a_scale_that_is_too_small_is_folded_and_then_all_rows_are_in_the_delta(grows: bool) -> None:
    stored = table_of(grows, Sgd(learning_rate=0.5, weight_decay=DenseDecay(rate=1.98)))
    host, every = HostRowStore([stored], [0]), torch.arange(ROWS)
    step(host, every.tolist(), 1.0, torch.ones(ROWS, DIM))
    before = host.read(0, "weight", every)
    for number in range(3):  # from 2^-6.6 to 2^-26.6
        cut = host.draw_cut()
        step(host, [3], 1.0, torch.zeros(1, DIM))
        assert changed_keys(host, cut) == [3], number
    captured, held = host.capture(0, None), host.read(0, "weight", every)
    cut = host.draw_cut()
    step(host, [], 1.0, torch.empty(0, DIM))
    assert changed_keys(host, cut) == every.tolist()
    assert host.capture(0, cut).content().scale == 1.0 == host.capture(0, cut).content().decay
    torch.testing.assert_close(host.read(0, "weight", every), before * 0.01**4, rtol=1e-5, atol=0.0)
    # What was captured before is what it was.
    content = captured.content().unscaled()
    order = np.argsort(content.keys)
    assert np.array_equal(content.columns["weight"][order], held.numpy())


def test_all_readers_give_the_same_bits() -> None:
    host, every = HostRowStore([table_of(False, Sgd(learning_rate=0.5, weight_decay=DECAY))], [0]), torch.arange(ROWS)
    for _ in range(3):
        step(host, [1, 2], 1.0, torch.ones(2, DIM))
    weight = host.read(0, "weight", every)
    assert torch.equal(host.gather([0], [every])[0], weight)
    offsets = torch.arange(0, ROWS + 1, 3)
    factors = torch.linspace(-1.0, 2.0, ROWS)
    for weights in (None, factors):
        lookup = Lookup((0,), every, offsets, weights, len(offsets) - 1)
        rows = weight if weights is None else weight * weights[:, None]
        sums = [(bag[0] + bag[1]) + bag[2] for bag in rows.split(3)]
        assert torch.equal(host.pooled(lookup), torch.stack(sums))
    pooled, kept = host.train_pooled(Lookup((0,), every, offsets, factors, len(offsets) - 1))
    of_weights = kept.add_gradient(torch.ones_like(pooled), of_weights=True)
    assert of_weights is not None
    torch.testing.assert_close(of_weights, weight.sum(dim=1))
    content = host.capture(0, None).content().unscaled()
    assert np.array_equal(content.columns["weight"][np.argsort(content.keys)], weight.numpy())


@pytest.mark.parametrize("grows", [False, True])
def test_rows_that_are_written_are_read_again_bit_for_bit(grows: bool) -> None:
    stored = table_of(grows, Sgd(learning_rate=0.5, weight_decay=DenseDecay(rate=1.0)))
    host, every = HostRowStore([stored], [0]), torch.arange(4)
    for _ in range(20):
        step(host, every.tolist(), 1.0, torch.ones(4, DIM))
    untouched = host.read(0, "weight", every[2:])
    greatest = torch.tensor([[3.4028234e38, -3.4028234e38, 1e-45, 0.1], [1 / 3, 1e30, -0.0, 1e-38]])
    host.write(0, "weight", every[:2], greatest)
    assert torch.equal(host.read(0, "weight", every[:2]), greatest)
    assert torch.equal(host.read(0, "weight", every[2:]), untouched)
    step(host, [0], 1.0, torch.zeros(1, DIM))
    torch.testing.assert_close(host.read(0, "weight", every[:2]), greatest * 0.5, rtol=1e-6, atol=1e-44)


@pytest.mark.parametrize("dim", [1, 3, 4, 19])
def test_no_weight_becomes_infinite_by_the_scale(dim: int) -> None:
    """Beyond 2^96 a weight may be smaller than the update says; below, it is what it says."""
    stored = table_of(False, Sgd(learning_rate=0.5, weight_decay=DenseDecay(rate=1.98)), dim=dim)
    host = HostRowStore([stored], [0])
    for _ in range(4):
        step(host, [], 1.0, torch.empty(0, dim))
    values = torch.tensor([1e28, -8e37, 8e37])
    _, kept = train_rows(host, 0, torch.tensor([0, 1, 2]))
    kept.add_gradients([(-4.0 * values)[:, None].expand(3, dim)])
    host.set_learning_rate_factor(0.5)  # 0.25 of the gradient, and a decay that leaves the scale above its least
    host.update(1.0)
    found = host.read(0, "weight", torch.arange(3))
    assert found.isfinite().all()
    torch.testing.assert_close(found[0], torch.full((dim,), 1e28), rtol=1e-6, atol=0.0)
    assert (found[1] < -1e30).all()
    assert (found[2] > 1e30).all()


@pytest.mark.parametrize("value", [1e20, 1e33, -3.4028234e38])
def test_fresh_rows_of_any_size_are_what_the_initializer_says(value: float) -> None:
    optimizer = Sgd(learning_rate=0.5, weight_decay=DenseDecay(rate=1.98))
    host = HostRowStore([table_of(True, optimizer, initializer=Constant(value=value))], [0])
    for key in range(9):
        rows, kept = train_rows(host, 0, torch.tensor([key]))
        torch.testing.assert_close(rows, torch.full((1, DIM), value), rtol=1e-6, atol=0.0)
        kept.add_gradients([torch.zeros(1, DIM)])
        host.update(1.0)
        expected = torch.full((DIM,), value) * 0.01
        torch.testing.assert_close(host.read(0, "weight", torch.tensor([key]))[0], expected, rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("make", STORES)
def test_a_frozen_table_stays(make: Any) -> None:
    optimizer = Sgd(learning_rate=0.5, weight_decay=DECAY)
    frozen = FixedTable(
        name="t", dim=DIM, num_rows=3, optimizer=optimizer, initializer=Normal(std=1.0), trainable=False
    )
    store = make([StoredTable(frozen, 1)], [0])
    before = store.read(0, "weight", torch.arange(3)).clone()
    store.update(1.0)
    assert torch.equal(store.read(0, "weight", torch.arange(3)), before)


def test_what_would_take_all_of_a_row_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"learning_rate \* weight_decay.rate must be below 1, received 0.5 \* 2.0"):
        validate(Sgd, {"learning_rate": 0.5, "weight_decay": {"kind": "dense", "rate": 2.0}})
    table = FixedTable(name="t", dim=DIM, num_rows=3, optimizer=Sgd(learning_rate=0.5, weight_decay=DECAY))
    store = HostRowStore([StoredTable(table, 1)], [0])
    store.set_learning_rate_factor(10.0)
    with pytest.raises(ConfigError, match=r"takes all of a row away at 10.0 times the learning rate 0.5"):
        store.update(1.0)


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"kind": "dense"}, "weight_decay.rate: Field required"),
        ({"kind": "dense", "rate": -1.0}, "weight_decay.rate: Input should be greater than or equal to 0"),
        ({"kind": "lazy", "rate": 1.0}, "weight_decay.kind: Input should be 'dense'"),
        (-1.0, "weight_decay: Input should be greater than or equal to 0"),
        ("much", "weight_decay: Input should be a valid number"),
    ],
)
def test_wrong_options_are_named(given_: object, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        validate(Sgd, {"learning_rate": 0.5, "weight_decay": given_})
    assert message in str(raised.value)


def test_fbgemm_refuses_it() -> None:
    table = FixedTable(name="t", dim=DIM, num_rows=3, optimizer=Sgd(learning_rate=0.5, weight_decay=DECAY))
    with pytest.raises(ConfigError, match="fbgemm ignores weight_decay on CPU"):
        FbgemmRowStore([StoredTable(table, 1)], [0])

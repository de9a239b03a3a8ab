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
from embtables.rows.protocol import RowStore
from embtables.rows.reference.store import ReferenceRowStore
from embtables.rows.stored_table import StoredTable
from embtables.schema import (
    Adagrad,
    Adam,
    CollisionlessTable,
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


@pytest.mark.parametrize("make", STORES)
@pytest.mark.parametrize("grows", [False, True])
def test_a_delta_holds_every_row_since_every_row_has_changed(make: Any, grows: bool) -> None:
    common: dict[str, Any] = {"name": "t", "dim": DIM, "optimizer": Sgd(learning_rate=0.5, weight_decay=DECAY)}
    table = CollisionlessTable(**common) if grows else FixedTable(**common, num_rows=3)
    store = make([StoredTable(table, 1)], [0])
    step(store, [0, 1, 2], 1.0, torch.ones(3, DIM))
    cut = store.draw_cut()
    step(store, [1], 1.0, torch.ones(1, DIM))
    assert sorted(store.changes(0, cut).keys.tolist()) == [0, 1, 2]


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

"""An optimizer that is not of the package: registered, trained with, written to a version and read back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor
from torchrec import KeyedJaggedTensor

import embtables
from embtables import CollisionlessTable, EmbeddingBagCollection, Feature, FixedTable, Tables
from embtables.errors import ConfigError, StateError
from embtables.rows.initial import initial_rows
from embtables.rows.optimizers import optimizer_spec, unregister_optimizer
from embtables.schema import Identity, Sgd, Table, json_schema, validate
from embtables.state.evolve.conversion import Conversion
from embtables.state.folder.version_folder import StateFolder
from embtables.state.read.load import load
from embtables.state.tools.figures import figures_of
from tests.contents import flat, same
from tests.state.versions_for_tests import open_chain

ROWS = 9


class Momentum(embtables.OptimizerConfig):
    """v = beta * v + g; w -= lr * v; and how often each row was updated."""

    kind: Literal["momentum"] = "momentum"
    beta: float = 0.5


def step(
    config: Momentum, weight: Tensor, state: Mapping[str, Tensor], gradient: Tensor, learning_rate: float, t: int
) -> None:
    state["velocity"].mul_(config.beta).add_(gradient)
    state["updates"].add_(1.0)
    weight.add_(state["velocity"], alpha=-learning_rate)


SPEC = embtables.OptimizerSpec(
    Momentum,
    step,
    {"velocity": embtables.StateColumn(per_element=True), "updates": embtables.StateColumn(per_element=False)},
)


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    embtables.register_optimizer(SPEC)
    yield
    unregister_optimizer("momentum")


def made(row_store: Any = "reference") -> Tables:
    learns = Momentum(learning_rate=0.1, beta=0.25)
    tables: list[Table] = [
        FixedTable(name="t", dim=4, num_rows=ROWS, optimizer=learns),
        CollisionlessTable(name="g", dim=3, optimizer=learns),
    ]
    features = [Feature(name=t.name, table=t.name, encoder=Identity()) for t in tables]
    return Tables(tables, features, seed=1, row_store=row_store)


def recorded(tables: Tables) -> dict[str, Any]:
    return {"schema": {"tables": [t.model_dump(mode="json") for t in tables.configs], "features": []}}


def train(tables: Tables, steps: int) -> None:
    view = EmbeddingBagCollection.over(tables)
    for number in range(steps):
        ids = torch.tensor([number % 3, 5, 40, 40])
        out = view(KeyedJaggedTensor(["t", "g"], ids, lengths=torch.tensor([1, 1, 1, 1]))).values()
        out.backward(torch.ones_like(out))
        tables.step()


def test_it_trains_by_its_rule() -> None:
    tables = made()
    train(tables, 3)
    key = torch.tensor([40])  # two gradients of ones in each of three steps
    velocity = weight = 0.0
    for _ in range(3):
        velocity = 0.25 * velocity + 2.0
        weight -= 0.1 * velocity
    first = initial_rows(tables.configs[1].initializer, tables.stored[1].seed, key.numpy(), 3)
    np.testing.assert_allclose(tables.rows.read(1, "weight", key).numpy(), first + np.float32(weight), rtol=1e-6)
    assert tables.rows.read(1, "velocity", key)[0].tolist() == pytest.approx([velocity] * 3)
    assert tables.rows.read(1, "updates", key).tolist() == [3.0]


def test_a_version_holds_its_state(tmp_path: Path) -> None:
    tables, state = made(), StateFolder(tmp_path)
    content = recorded(tables)
    with open_chain(state, tables) as chain:
        train(tables, 3)
        chain.cut({}, content)
    again = made()
    versions = state.chain("resume", 1)
    load(state, versions, again)
    assert same(flat(tables), flat(again))
    train(tables, 2)
    train(again, 2)
    assert same(flat(tables), flat(again))
    found = {table.table: table for table in figures_of(state, versions, [], 0)}
    assert found["g"].optimizer == "momentum"
    assert found["g"].state == {"velocity": True, "updates": False}
    # A table goes on with another optimizer: rows stay.
    others = Tables(
        [t.model_copy(update={"optimizer": Sgd(learning_rate=1.0)}) for t in tables.configs],
        [Feature(name=t.name, table=t.name) for t in tables.configs],
        seed=1,
    )
    for was, now in zip(tables.stored, others.stored, strict=True):
        others.take_over(now.config.name, Conversion(was, now).apply(tables.table_content(now.config.name)))
        assert torch.equal(others.weight(now.config.name), tables.weight(now.config.name))


def test_stores_that_do_not_have_it_refuse_it() -> None:
    wanted = "table t: the host row store has no optimizer 'momentum'; set train.row_store: reference"
    with pytest.raises(ConfigError, match=wanted):
        made("host")
    wanted = "fbgemm has no momentum on CPU; use sgd or adagrad or rowwise_adagrad, or set train.row_store: reference"
    with pytest.raises(ConfigError, match=wanted):
        made("fbgemm")


def test_it_is_a_kind_of_the_schema() -> None:
    content = {"name": "t", "dim": 1, "num_rows": 1, "optimizer": {"kind": "momentum", "learning_rate": 0.1, "beta": 0}}
    assert validate(FixedTable, content).optimizer == Momentum(learning_rate=0.1, beta=0.0)
    assert '"beta"' in json_schema(FixedTable)
    with pytest.raises(ConfigError, match="unknown key 'beto'; did you mean 'beta'"):
        validate(FixedTable, {"name": "t", "dim": 1, "num_rows": 1, "optimizer": {"kind": "momentum", "beto": 1}})


def test_what_is_taken_is_refused() -> None:
    with pytest.raises(ConfigError, match="optimizer 'momentum' is already Momentum"):
        embtables.register_optimizer(SPEC)
    with pytest.raises(ConfigError, match="cannot have state named 'seen'"):
        embtables.register_optimizer(
            embtables.OptimizerSpec(Momentum, step, {"seen": embtables.StateColumn(per_element=False)})
        )


def test_a_version_whose_optimizer_nobody_registered_says_so(tmp_path: Path) -> None:
    tables, state = made(), StateFolder(tmp_path)
    content = recorded(tables)
    with open_chain(state, tables) as chain:
        train(tables, 1)
        chain.cut({}, content)
    unregister_optimizer("momentum")
    try:
        with pytest.raises(StateError, match=r"tables.0.optimizer: 'kind' must be one of: sgd"):
            figures_of(state, state.chain("resume", 1), [], 0)
        with pytest.raises(ConfigError, match="optimizer Momentum is not registered; call register_optimizer"):
            optimizer_spec(Momentum(learning_rate=0.1))
    finally:
        embtables.register_optimizer(SPEC)

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
from embtables.native import _core
from embtables.rows.initial import initial_rows
from embtables.rows.optimizers import NATIVE_RULES, optimizer_spec, unregister_optimizer
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


class Toy(embtables.OptimizerConfig):
    """Adagrad, as the package has it."""

    kind: Literal["toy"] = "toy"
    eps: float = 0.01


SUM = {"sum": embtables.StateColumn(per_element=True, native=1)}
EPS = {"eps": lambda config: config.eps}
FORGOTTEN: dict[str, tuple[dict[str, Any], str]] = {
    "parameters": ({"state": SUM, "native_rule": 1}, "parameters lack eps, which native_rule 1 computes with"),
    "parameters of fbgemm": (
        {"state": SUM, "fbgemm": "EXACT_ADAGRAD"},
        "parameters lack eps, which fbgemm's EXACT_ADAGRAD computes with",
    ),
    "one of several parameters": (
        {
            "state": {name: embtables.StateColumn(per_element=True, native=n) for n, name in ((1, "m"), (2, "v"))},
            "parameters": EPS,
            "native_rule": 3,
        },
        "parameters lack beta1, beta2, which native_rule 3 computes with",
    ),
    "name of a parameter": (
        {"state": SUM, "native_rule": 1, "parameters": {"epsilon": EPS["eps"]}},
        "parameters lack eps, which native_rule 1 computes with; "
        "parameters have epsilon, which no rule that it names computes with",
    ),
    "names of parameters": (
        {"state": SUM, "native_rule": 1, "parameters": lambda config: {"eps": config.eps}},
        "parameters must be a mapping from names (eps, beta1, beta2) to functions of the options",
    ),
    "rule of parameters": ({"parameters": EPS}, "parameters have eps, which no rule that it names computes with"),
    "number of a column": (
        {"state": {"sum": embtables.StateColumn(per_element=True)}, "native_rule": 1, "parameters": EPS},
        "native_rule 1 keeps native=1, per_element=True, and state has sum with native=None, per_element=True",
    ),
    "right number of a column": (
        {"state": {"sum": embtables.StateColumn(per_element=True, native=2)}, "native_rule": 1, "parameters": EPS},
        "native_rule 1 keeps native=1, per_element=True, and state has sum with native=2, per_element=True",
    ),
    "width of a column": (
        {"state": {"sum": embtables.StateColumn(per_element=False, native=1)}, "native_rule": 1, "parameters": EPS},
        "native_rule 1 keeps native=1, per_element=True, and state has sum with native=1, per_element=False",
    ),
    "column": (
        {"native_rule": 1, "parameters": EPS},
        "native_rule 1 keeps native=1, per_element=True, and state has no column",
    ),
    "column of its own": (
        {"state": SUM, "native_rule": 0},
        "native_rule 0 keeps no state, and state has sum with native=1, per_element=True",
    ),
    "column of fbgemm": (
        {"state": {**SUM, "more": SUM["sum"]}, "fbgemm": "EXACT_ADAGRAD", "parameters": EPS},
        "fbgemm's EXACT_ADAGRAD keeps state of per_element=[True], and the columns of state have [True, True]",
    ),
    "rule of the native core": ({"native_rule": 99}, "there is no native_rule 99; there are 0, 1, 2, 3"),
    "rule of fbgemm": (
        {"fbgemm": "NOTHING"},
        "fbgemm has no NOTHING on CPU; it has EXACT_SGD, EXACT_ADAGRAD, EXACT_ROWWISE_ADAGRAD",
    ),
    "rule of fbgemm for one value": (
        {"fbgemm": "EXACT_SGD", "fbgemm_of_one_value": "EXACT_ADAGRAD"},
        "fbgemm's EXACT_ADAGRAD keeps state of per_element=[True], and the columns of state have []; "
        "parameters lack eps, which fbgemm's EXACT_ADAGRAD computes with",
    ),
    "option that may change": ({"may_change": ["epsilon"]}, "may_change has epsilon, which is no option"),
}


@pytest.mark.parametrize("case", FORGOTTEN)
def test_what_is_forgotten_is_refused(case: str) -> None:
    """The host store trained with eps 0, so with NaN, and dropped columns of state; nothing said so."""
    options, text = FORGOTTEN[case]
    with pytest.raises(ConfigError) as raised:
        embtables.OptimizerSpec(Toy, step, **options)
    assert str(raised.value) == f"optimizer 'Toy': {text}"


def toy_step(
    config: Toy, weight: Tensor, state: Mapping[str, Tensor], gradient: Tensor, learning_rate: float, t: int
) -> None:
    total = state["sum"].addcmul_(gradient, gradient)
    weight.addcdiv_(gradient, total.sqrt().add_(config.eps), value=-learning_rate)


@pytest.mark.parametrize("row_store", ["host", "fbgemm"])
def test_the_rule_of_a_row_store_takes_its_parameters(row_store: Any) -> None:
    embtables.register_optimizer(
        embtables.OptimizerSpec(Toy, toy_step, SUM, EPS, native_rule=1, fbgemm="EXACT_ADAGRAD")
    )
    try:
        found = []
        for store in (row_store, "reference"):
            table = FixedTable(name="t", dim=4, num_rows=ROWS, optimizer=Toy(learning_rate=0.1, eps=0.5))
            tables = Tables([table], [Feature(name="t", table="t", encoder=Identity())], seed=1, row_store=store)
            view = EmbeddingBagCollection.over(tables)
            out = view(KeyedJaggedTensor(["t"], torch.tensor([1, 2]), lengths=torch.tensor([1, 1]))).values()
            out.backward(torch.ones_like(out) / 4)
            tables.step()
            found.append(tables.weight("t"))
        torch.testing.assert_close(*found)
    finally:
        unregister_optimizer("toy")


def test_the_native_core_has_the_rules_that_are_listed_and_no_other() -> None:
    def spec(rule: int) -> _core.TableSpec:
        numbers = {"rate": 0.1, "weight_decay": 0.0, "eps": 0.1, "beta1": 0.9, "beta2": 0.9}
        return _core.TableSpec(dim=4, num_rows=1, rule=rule, **numbers, initial=0, initial_a=0.0, initial_b=0.0, seed=0)

    assert list(NATIVE_RULES) == list(range(len(NATIVE_RULES)))
    for rule in NATIVE_RULES:
        spec(rule)
    with pytest.raises(ValueError, match="no such optimizer"):
        spec(len(NATIVE_RULES))


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

"""Evolution of a schema: each rule, and that nothing changes where nothing differs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchrec import KeyedJaggedTensor

from embtables import EmbeddingBagCollection, Tables
from embtables.errors import ConfigError
from embtables.keyspace import bucket_order
from embtables.schema import Adagrad, MinCount, Probability, Uniform
from embtables.state.evolve.evolution import StateSchema, evolve
from embtables.state.format.version import Version
from tests.contents import flat_content, same
from tests.state.evolve.schemas_for_tests import IDENTITY, OPTIMIZERS, feature, fixed, grows, schema


def build(of: StateSchema, seed: int = 0, store: Any = "host") -> Tables:
    return Tables([t.config for t in of.tables], of.features, seed=seed, row_store=store)


def trained(of: StateSchema, steps: int = 6, seed: int = 0, start: int = 1_000, ids: int = 9) -> Tables:
    """Tables that have learned, a step every second."""
    tables = build(of, seed)
    view = EmbeddingBagCollection.over(tables)
    for step in range(steps):
        values = torch.from_numpy(np.random.default_rng(step).integers(0, ids, 8 * len(of.features)))
        tables.advance(torch.full((8,), (start + step) * 1_000_000))
        batch = KeyedJaggedTensor([f.name for f in of.features], values, lengths=torch.ones_like(values))
        out = view(batch).values()
        out.backward(torch.from_numpy(np.random.default_rng(step).standard_normal(out.shape)).float())
        tables.step()
    return tables


def taken(was: StateSchema, now: StateSchema, fresh: Any = (), **options: Any) -> tuple[Any, Tables, list[str]]:
    """What `t` held, the new tables after taking it over, and the notes."""
    tables = trained(was, **options)
    version, notes = evolve(Version(tables.content()), was, now, fresh)
    made = build(now)
    for name, content in version.tables.items():
        made.take_over(name, content)
    return tables.content().get("t"), made, [str(note) for note in notes]


# ---- kept, converted


COLLISIONLESS: list[dict[str, Any]] = [
    {},
    {"ttl_seconds": 4},
    {"admission": MinCount(count=2), "max_rows": 6, "cold_row": "trained"},
    {"admission": MinCount(count=2, max_waiting=2000, counting="sketch"), "ttl_seconds": 3},
    {"admission": Probability(probability=0.5), "trainable": False},
]


@settings(max_examples=60, deadline=None)
@given(
    optimizer=st.sampled_from(OPTIMIZERS),
    changes=st.one_of(st.none(), st.sampled_from(COLLISIONLESS)),
    dim=st.integers(1, 9),
    seed=st.integers(0, 2**62),
    steps=st.integers(0, 7),
)
def test_under_the_same_schema_nothing_changes(optimizer: Any, changes: Any, dim: int, seed: int, steps: int) -> None:
    common = {"optimizer": optimizer, "dim": dim}
    of = schema(fixed(**common) if changes is None else grows(**common, **changes), seed=seed)
    before = trained(of, steps, seed)
    version, notes = evolve(Version(before.content(), {"dense": np.ones(3)}, {"step": 4}), of, of)
    assert notes == []
    assert same(flat_content(version.tables["t"]), flat_content(before.content()["t"]))
    assert (list(version.tensors), version.content) == (["dense"], {"step": 4})
    again = build(of, seed)
    again.take_over("t", version.tables["t"])
    assert same(flat_content(again.content()["t"]), flat_content(before.content()["t"]))


@pytest.mark.parametrize("kind", [fixed, grows])
@pytest.mark.parametrize("then", OPTIMIZERS, ids=lambda o: o.kind)
@pytest.mark.parametrize("here", OPTIMIZERS, ids=lambda o: o.kind)
def test_another_optimizer_keeps_weights_and_converts_sums(then: Any, here: Any, kind: Any) -> None:
    extra = {} if kind is fixed else {"cold_row": "trained", "admission": MinCount(count=4)}
    old, made, notes = taken(schema(kind(optimizer=then, **extra)), schema(kind(optimizer=here, **extra)))
    new = made.content()["t"]
    assert np.array_equal(new.columns["weight"], old.columns["weight"])
    assert np.array_equal(new.counts, old.counts)
    assert old.columns["weight"].any()
    pairs = [(old.columns, new.columns)] if kind is fixed else [(old.columns, new.columns), (old.cold, new.cold)]
    for before, after in pairs:
        state = {name: values for name, values in after.items() if name != "weight"}
        if then.kind == here.kind:
            assert all(np.array_equal(values, before[name]) for name, values in state.items())
        elif (then.kind, here.kind) == ("adagrad", "rowwise_adagrad"):
            assert np.allclose(state["sum"], before["sum"].mean(axis=1), rtol=1e-6)
        elif (then.kind, here.kind) == ("rowwise_adagrad", "adagrad"):
            assert np.array_equal(state["sum"], np.repeat(before["sum"][:, None], 4, axis=1))
            assert state["sum"].any()
        else:
            assert not any(values.any() for values in state.values())
    assert new.updates == (old.updates if then.kind == here.kind else 0)
    rule = {
        ("adagrad", "rowwise_adagrad"): "rows stay, each with the mean of its elements' sum",
        ("rowwise_adagrad", "adagrad"): "rows stay, each with its row's sum in each element",
    }.get((then.kind, here.kind), "rows stay, optimizer state begins at zero")
    assert notes == ([] if then.kind == here.kind else [f"table t: optimizer {then.kind} -> {here.kind}: {rule}"])


OPTIONS: dict[str, tuple[Any, Any, str]] = {
    "learning rate": (
        grows(optimizer=Adagrad(learning_rate=0.1)),
        grows(optimizer=Adagrad(learning_rate=0.5, weight_decay=0.1)),
        "optimizer learning_rate 0.1 -> 0.5, weight_decay 0.0 -> 0.1: rows and optimizer state stay",
    ),
    "initial rows": (
        grows(),
        grows(initializer=Uniform(low=0.0, high=1.0)),
        "initializer kind='normal' std=0.01 -> kind='uniform' low=0.0 high=1.0: rows stay, new rows begin as the new "
        "one says",
    ),
    "frozen": (grows(), grows(trainable=False), "trainable true -> false: rows stay as they are from now on"),
    "thawed": (grows(trainable=False), grows(), "trainable false -> true: rows stay"),
    "gradients": (grows(), grows(non_finite_gradients="raise"), "non_finite_gradients skip -> raise: rows stay"),
    "clock": (
        grows(ttl_seconds=99),
        grows(ttl_seconds=99, max_clock_step_seconds=5),
        "max_clock_step_seconds 86,400 -> 5: rows stay",
    ),
    "longer ttl": (
        grows(ttl_seconds=99),
        grows(ttl_seconds=100),
        "ttl_seconds 99 -> 100: rows stay, those that are older expire",
    ),
    "more rows": (grows(max_rows=90), grows(max_rows=91), "max_rows 90 -> 91: rows stay"),
    "any rows": (grows(max_rows=90), grows(), "max_rows 90 -> none: rows stay"),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_rows_stay_under_other_options(case: str) -> None:
    then, here, text = OPTIONS[case]
    old, made, notes = taken(schema(then), schema(here))
    assert notes == [f"table t: {text}"]
    assert same(flat_content(made.content()["t"]), flat_content(old))


def step(tables: Tables, second: int, ids: list[int]) -> None:
    tables.advance(torch.full((len(ids),), second * 1_000_000))
    view = EmbeddingBagCollection.over(tables)
    names = [read.feature.name for read in tables.features]
    batch = KeyedJaggedTensor(names, torch.tensor(ids), lengths=torch.ones(len(ids), dtype=torch.int64))
    view(batch).values().sum().backward()
    tables.step()


def keys(tables: Tables) -> list[int]:
    found = tables.keys("t")
    assert found is not None
    return found.tolist()


@pytest.mark.parametrize("store", ["host", "reference"])
def test_with_a_ttl_that_was_not_there_ages_begin_with_the_first_batch(store: Any) -> None:
    was, now = schema(grows(), IDENTITY), schema(grows(ttl_seconds=10), IDENTITY)
    version, notes = evolve(Version(trained(was).content()), was, now)
    assert [str(n) for n in notes] == [
        "table t: ttl_seconds none -> 10: rows stay, their ages begin with the first batch"
    ]
    made = build(now, store=store)
    made.take_over("t", version.tables["t"])
    before = keys(made)
    assert len(before) > 5
    step(made, 1_700_000_000, [0])
    assert keys(made) == before
    step(made, 1_700_000_008, [1])
    step(made, 1_700_000_016, [2])
    assert keys(made) == [1, 2]


def test_a_table_that_learns_again_has_lost_no_row_to_the_time_between() -> None:
    was, now = (schema(grows(ttl_seconds=10, trainable=learns), IDENTITY) for learns in (False, True))
    tables = build(was)
    tables.set("t", torch.arange(5), torch.ones(5, 4))
    content = tables.content()
    content["t"].now, content["t"].seen = 500, np.full(5, 500, np.uint32)  # when it last learned
    version, notes = evolve(Version(content), was, now)
    assert "table t: learns again with a ttl: rows stay, their ages begin with the first batch" in map(str, notes)
    made = build(now)
    made.take_over("t", version.tables["t"])
    step(made, 90_000, [1])
    assert keys(made) == [0, 1, 2, 3, 4]


def test_without_the_ttl_what_was_seen_last_goes_last() -> None:
    was, now = schema(grows(ttl_seconds=100), IDENTITY), schema(grows(max_rows=33), IDENTITY)
    tables = build(was)
    for second in range(40):
        step(tables, 5_000 + second, [second, 99])
    version, notes = evolve(Version(tables.content()), was, now)
    assert [str(n) for n in notes] == [
        "table t: ttl_seconds 100 -> none: rows stay, ages count in steps from now on",
        "table t: max_rows none -> 33: rows above it are evicted by the first step, the least recently seen first",
    ]
    made = build(now)
    made.take_over("t", version.tables["t"])
    assert len(keys(made)) == 41
    step(made, 0, [99])
    assert keys(made) == [*range(9, 40), 99]


ADMISSIONS: dict[str, tuple[Any, Any, bool, str]] = {
    "a higher count": (
        MinCount(count=3),
        MinCount(count=4),
        True,
        ": rows stay, waiting keys keep their counts",
    ),
    "exact to sketch": (
        MinCount(count=3),
        MinCount(count=3, counting="sketch"),
        False,
        ": rows stay, waiting keys begin again",
    ),
    "sketch to exact": (
        MinCount(count=3, counting="sketch"),
        MinCount(count=3),
        False,
        ": rows stay, waiting keys begin again",
    ),
    "another sketch": (
        MinCount(count=3, max_waiting=5000, counting="sketch"),
        MinCount(count=3, max_waiting=9000, counting="sketch"),
        False,
        ": rows stay, waiting keys begin again",
    ),
    "none": (MinCount(count=3), None, False, " -> none: rows stay, waiting keys begin again"),
    "probability": (None, Probability(probability=0.5), False, "admission none -> {'kind': 'probability'"),
}


@pytest.mark.parametrize("case", ADMISSIONS)
def test_waiting_keys_go_on_where_they_are_counted_alike(case: str) -> None:
    then, here, kept, text = ADMISSIONS[case]
    was, now = schema(grows(admission=then), IDENTITY), schema(grows(admission=here), IDENTITY)
    tables = build(was)
    step(tables, 1, [1, 1, 1, 2, 2])
    old = tables.content()["t"]
    version, notes = evolve(Version(tables.content()), was, now)
    assert len(notes) == 1
    assert text in str(notes[0])
    found = version.tables["t"]
    assert np.array_equal(found.keys, old.keys)
    assert np.array_equal(found.columns["weight"], old.columns["weight"])
    assert found.waiting.tolist() == ([2] if kept else [])
    assert found.waiting_counts.tolist() == ([2] if kept else [])
    assert len(found.sketch) == 0


def test_a_sketch_is_dropped_with_its_seed_or_ttl() -> None:
    admission = MinCount(count=2, counting="sketch")
    was = schema(grows(admission=admission, ttl_seconds=9))
    for now in (
        schema(grows(admission=admission, ttl_seconds=9), seed=1),
        schema(grows(admission=admission, ttl_seconds=8)),
    ):
        version, notes = evolve(Version(trained(was).content()), was, now)
        assert str(notes[-1]) == "table t: the sketch does not fit another seed or ttl: waiting keys begin again"
        assert len(version.tables["t"].sketch) == 0


@pytest.mark.parametrize("then", ["zeros", "trained"])
def test_the_cold_row(then: Any) -> None:
    here: Any = "trained" if then == "zeros" else "zeros"
    common = {"admission": MinCount(count=50)}
    old, made, notes = taken(schema(grows(cold_row=then, **common)), schema(grows(cold_row=here, **common)))
    text = "it begins at zero and learns" if here == "trained" else "what it had learned is dropped"
    assert notes == [f"table t: cold_row {then} -> {here}: rows stay, {text}"]
    assert old.cold["weight"].any() == (then == "trained")
    assert not any(values.any() for values in made.content()["t"].cold.values())


@pytest.mark.parametrize("store", ["host", "reference"])
def test_another_seed_keeps_rows_by_key(store: Any) -> None:
    table = grows(admission=MinCount(count=2))
    was, now = schema(table, IDENTITY), schema(table, IDENTITY, seed=5)
    before = trained(was, ids=200, steps=20)
    version, notes = evolve(Version(before.content()), was, now)
    assert [str(n) for n in notes] == [
        "table t: another seed: rows stay; new keys get the initial rows of the new seed"
    ]
    made = build(now, 5, store)
    made.take_over("t", version.tables["t"])
    assert torch.equal(made.weight("t"), before.weight("t"))
    assert len(keys(made)) > 20
    found, new_seed = version.tables["t"], now.tables[0].seed
    for listed in (found.keys, found.waiting):
        assert len(listed) > 20
        assert np.array_equal(bucket_order(listed, new_seed), np.arange(len(listed)))


def test_an_identity_table_grows() -> None:
    was, now = schema(fixed(), IDENTITY), schema(fixed(num_rows=12), IDENTITY)
    old, made, notes = taken(was, now)
    assert notes == ["table t: num_rows 9 -> 12: rows stay, the new ones are fresh"]
    assert np.array_equal(made.weight("t").numpy()[np.sort(old.keys)], old.columns["weight"][np.argsort(old.keys)])
    assert torch.equal(made.weight("t")[9:], build(now).weight("t")[9:])


# ---- added, removed


def test_tables_and_features_come_and_go() -> None:
    was = schema(grows(), grows(name="u"), feature("a"), feature("b", "u"), feature("c", column="x"))
    now = schema(grows(), fixed(name="v"), feature("a"), feature("d", "v"), feature("b"), feature("c", column="y"))
    version, notes = evolve(Version(trained(was).content()), was, now)
    assert list(version.tables) == ["t"]
    assert [str(note) for note in notes] == [
        "table v: is new: it begins afresh",
        "table u: is not in the configuration: its rows are dropped",
        "feature d: is new; its table's rows are as they were",
        "feature b: reads table t now, u before",
        "feature c: reads column y now, x before: its ids must mean the same",
    ]
    notes = evolve(Version(trained(now).content()), now, schema(grows(), feature("a")))[1]
    assert "feature d: is not in the configuration; its table's rows stay if the table does" in map(str, notes)


def test_a_table_begins_afresh_when_asked() -> None:
    was, now = schema(grows()), schema(grows(dim=9))
    version, notes = evolve(Version(trained(was).content()), was, now, ["t"])
    assert version.tables == {}
    assert [str(note) for note in notes] == ["table t: begins afresh, as asked"]
    with pytest.raises(ConfigError, match="table u: there is no such table to begin afresh; there are: t"):
        evolve(Version({}), was, now, ["u"])

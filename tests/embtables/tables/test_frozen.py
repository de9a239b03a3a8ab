"""`trainable: false`: training reads a table's rows and leaves all of it as it was, bit for bit, in every row store."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torchrec import KeyedJaggedTensor

from embtables import CollisionlessTable, EmbeddingBagCollection, EmbeddingCollection, Feature, FixedTable, Tables
from embtables.errors import DataError
from embtables.schema import Adagrad, Adam, Identity, MinCount, Normal, Optimizer, Probability
from tests.contents import flat_content, same

STORES = ["host", "reference", "fbgemm"]
COLLISIONLESS: list[dict[str, Any]] = [
    {},
    {"admission": MinCount(count=2), "cold_row": "trained"},
    {"admission": MinCount(count=2, max_waiting=2000, counting="sketch"), "ttl_seconds": 5},
    {"admission": Probability(probability=0.5), "max_rows": 4},
]


def build(store: Any, frozen: FixedTable | CollisionlessTable, pooling: Any = "sum") -> Tables:
    """The frozen table `t`, read by the first and the third feature, and a fixed one that learns."""
    learns = FixedTable(
        name="learns", dim=8, num_rows=20, optimizer=frozen.optimizer, initializer=Normal(std=1.0), trainable=True
    )
    readers = (("a", "t"), ("b", "learns"), ("c", "t"))
    features = [Feature(name=n, table=t, encoder=Identity(), pooling=pooling, weights_column="w") for n, t in readers]
    return Tables([frozen, learns], features, seed=1, row_store=store)


def fixed(optimizer: Optimizer | None = None) -> FixedTable:
    learns = optimizer or Adagrad(learning_rate=0.1)
    return FixedTable(name="t", dim=8, num_rows=20, optimizer=learns, initializer=Normal(std=1.0), trainable=False)


def collisionless(**changes: Any) -> CollisionlessTable:
    common = {"name": "t", "dim": 8, "optimizer": Adam(learning_rate=0.1), "initializer": Normal(std=1.0)}
    return CollisionlessTable(**{**common, "trainable": False, **changes})


def batch(step: int, *, weighted: bool = True) -> KeyedJaggedTensor:
    """Six ids per feature in three rows; row by row 1, 3 and 2 of them."""
    generator = torch.Generator().manual_seed(step)
    ids = torch.randint(0, 20, (18,), generator=generator)
    weights = torch.rand(18, generator=generator, requires_grad=True) if weighted else None
    return KeyedJaggedTensor(["a", "b", "c"], ids, weights=weights, lengths=torch.tensor([1, 3, 2] * 3))


def content(tables: Tables) -> Any:
    return flat_content(tables.content()["t"])


def train(tables: Tables, steps: int, *, weighted: bool = True) -> None:
    view = EmbeddingBagCollection.over(tables)
    for step in range(steps):
        tables.advance(torch.full((3,), (100 + step) * 1_000_000))
        view(batch(step, weighted=weighted)).values().square().sum().backward()
        tables.step()


@pytest.mark.parametrize("store", STORES)
def test_training_leaves_a_frozen_table_bit_for_bit(store: Any) -> None:
    configs: list[Any] = [fixed()]
    if store != "fbgemm":
        configs += [fixed(Adam(learning_rate=0.1)), *(collisionless(**changes) for changes in COLLISIONLESS)]
    for config in configs:
        tables = build(store, config)
        if not isinstance(config, FixedTable):
            tables.set("t", torch.arange(0, 12), torch.randn(12, 8), feature="a")
        before, learned = content(tables), tables.weight("learns")
        train(tables, 12)
        assert same(content(tables), before), config
        assert not torch.equal(tables.weight("learns"), learned)


@pytest.mark.parametrize("store", STORES)
def test_sequences_read_frozen_rows_and_leave_them(store: Any) -> None:
    tables = build(store, fixed(), pooling="none")
    before, learned = content(tables), tables.weight("learns")
    found = EmbeddingCollection.over(tables)(batch(0))
    assert torch.equal(found["a"].values(), tables.weight("t")[batch(0)["a"].values()])
    sum(found[name].values().sum() for name in ("a", "b", "c")).backward()
    tables.step()
    assert same(content(tables), before)
    assert not torch.equal(tables.weight("learns"), learned)


@pytest.mark.parametrize("store", STORES)
def test_a_batch_reads_what_it_would_read_of_a_table_that_learns(store: Any) -> None:
    """In the first step nothing has been learned yet: outputs and the weights' gradients are those of other tables."""
    results = []
    for trainable in (False, True):
        tables = build(store, fixed().model_copy(update={"trainable": trainable}))
        ids = batch(3)
        out = EmbeddingBagCollection.over(tables)(ids).values()
        out.backward(torch.randn(out.shape, generator=torch.Generator().manual_seed(0)))
        results.append((out.detach(), ids.weights().grad))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.allclose(results[0][1], results[1][1], rtol=1e-5, atol=1e-6)
    assert bool(results[0][1].abs().min() > 0)


def test_the_table_that_learns_learns_as_beside_one_that_does() -> None:
    learned = []
    for trainable in (False, True):
        tables = build("host", fixed().model_copy(update={"trainable": trainable}))
        view = EmbeddingBagCollection.over(tables)
        for step in range(5):
            view(batch(step)).values().sum().backward()  # a gradient that does not depend on the other table
            tables.step()
        learned.append(tables.weight("learns"))
    assert torch.equal(*learned)


@pytest.mark.parametrize("store", ["host", "reference"])
def test_ids_without_a_row_read_cold_rows_and_get_none(store: Any) -> None:
    tables = build(store, collisionless())
    tables.set("t", torch.tensor([1]), torch.ones(1, 8), feature="a")
    ids = KeyedJaggedTensor(
        ["a", "b", "c"], torch.tensor([1, 9, 2, 1, 5]), weights=torch.ones(5), lengths=torch.tensor([2, 1, 2])
    )
    found = EmbeddingBagCollection.over(tables)(ids)
    assert torch.equal(found["a"], torch.ones(1, 8))  # 1 has a row, 9 has none
    found.values().sum().backward()
    tables.step()
    assert tables.keys("t").tolist() == [1]  # type: ignore[union-attr]


@pytest.mark.parametrize("store", ["host", "reference"])
def test_rows_past_their_ttl_stay_for_a_frozen_table_has_no_clock(store: Any) -> None:
    tables = build(store, collisionless(ttl_seconds=5))
    tables.set("t", torch.arange(20), torch.randn(20, 8), feature="a")
    rows = tables.weight("t")
    train(tables, 12)
    assert torch.equal(tables.get("t", torch.arange(20), feature="c"), rows)


@pytest.mark.parametrize("config", [fixed(), collisionless()])
def test_a_delta_of_a_frozen_table_holds_no_rows(config: Any) -> None:
    tables = build("host", config)
    tables.set("t", torch.arange(20), torch.randn(20, 8), feature="a")
    cut = tables.draw_cut()
    train(tables, 3)
    changed = tables.content(cut)
    assert len(changed["t"].keys) == len(changed["t"].tombstones) == 0
    assert len(changed["learns"].keys) > 0


@pytest.mark.parametrize("store", STORES)
def test_with_every_table_frozen_a_step_changes_nothing(store: Any) -> None:
    tables = Tables([fixed()], [Feature(name="a", table="t", encoder=Identity())], seed=1, row_store=store)
    before = content(tables)
    dense = torch.ones(8, requires_grad=True)
    view = EmbeddingBagCollection.over(tables)
    out = view(KeyedJaggedTensor(["a"], torch.tensor([1, 2]), lengths=torch.tensor([1, 1]))).values()
    (out @ dense).sum().backward()
    assert tables.gradient_norm() == 0.0
    tables.step()
    assert same(content(tables), before)
    assert torch.equal(dense.grad, tables.weight("t")[1] + tables.weight("t")[2])  # type: ignore[arg-type]


def test_a_user_sets_and_deletes_rows_of_a_frozen_table() -> None:
    tables = build("host", collisionless())
    tables.set("t", torch.tensor([4, 5]), torch.ones(2, 8), feature="a")
    tables.delete("t", torch.tensor([4]), feature="a")
    assert tables.get("t", torch.tensor([4, 5]), feature="a").sum(dim=1).tolist() == [0.0, 8.0]


def test_wrong_ids_are_refused_as_elsewhere() -> None:
    tables = build("host", fixed())
    ids = KeyedJaggedTensor(
        ["a", "b", "c"], torch.tensor([20, 1, 1]), weights=torch.ones(3), lengths=torch.ones(3).long()
    )
    with pytest.raises(DataError, match=r"feature a: id 20 is outside 0\.\.19"):
        EmbeddingBagCollection.over(tables)(ids)

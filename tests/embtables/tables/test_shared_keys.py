"""First-order weights share the keys of their table's embeddings: one encoding, one map, rows of their own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from embtables import CollisionlessTable, Feature, FixedTable, LeaseHolder, StateFolder, Tables, VersionWriter
from embtables.errors import StateError
from embtables.inputs.batch import JaggedIds
from embtables.lookup.views import PooledFirstOrderView, PooledView
from embtables.rows.host.store import HostRowStore
from embtables.rows.protocol import Lookup
from embtables.schema import Identity, MinCount, MultiHash, Normal, Sgd, Table, Zeros
from embtables.state.read.load import load
from embtables.state.read.version_reader import shares_keys
from embtables.tables.shared_keys import stored_tables
from tests.embtables.ids.encoders_for_tests import Digits, registered

COLLISIONLESS = {"optimizer": Sgd(learning_rate=0.05, weight_decay=0.01), "initializer": Normal(std=0.5)}


@pytest.fixture(autouse=True, scope="module")
def _digits() -> Iterator[None]:
    with registered():
        yield


def linear_of(table: Table) -> Table:
    return table.model_copy(update={"name": f"linear.{table.name}", "dim": 1, "initializer": Zeros()})


def made(features: list[Feature], *tables: Table, **options: Any) -> Tables:
    """Tables of a model that takes embeddings and first-order weights."""
    linear = [f.model_copy(update={"table": f"linear.{f.table}"}) for f in features]
    return Tables([*tables, *map(linear_of, tables)], [*features, *linear], seed=3, **options)


def grows(name: str = "item", **options: Any) -> CollisionlessTable:
    return CollisionlessTable(name=name, dim=4, **{**COLLISIONLESS, **options})


def batches(names: list[str], rng: np.random.Generator, *, weighted: bool, count: int = 6) -> list[JaggedIds]:
    found = []
    for _ in range(count):
        lengths = torch.from_numpy(rng.integers(0, 4, len(names) * 5))
        ids = torch.from_numpy(rng.integers(0, 40, int(lengths.sum())))
        weights = torch.from_numpy(rng.standard_normal(len(ids)).astype(np.float32)) if weighted else None
        found.append(JaggedIds(tuple(names), ids, lengths, 5, weights))
    return found


ENCODERS = {
    "one key": {},
    "two keys": {"encoder": MultiHash()},
    "concatenated": {"encoder": Digits(base=7, combine="concat")},
    "averaged": {"encoder": Digits(base=7, combine="mean")},
    "multiplied": {"encoder": Digits(base=7, combine="product")},
}


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("pooling", ["sum", "mean"])
@pytest.mark.parametrize("store", ["host", "reference"])
@pytest.mark.parametrize("weighted", [False, True])
def test_one_lookup_trains_as_two_do(encoder: str, pooling: Any, store: Any, weighted: bool) -> None:
    column = "w" if weighted else None
    features = [
        Feature(name="a", table="item", pooling=pooling, weights_column=column, **ENCODERS[encoder]),
        Feature(name="b", table="item", pooling=pooling, weights_column=column, **ENCODERS[encoder]),
        Feature(name="c", table="shop", pooling="sum", weights_column=column),
    ]
    shop = FixedTable(name="shop", dim=3, num_rows=40, optimizer=Sgd(learning_rate=0.1), initializer=Normal(std=1))
    at_once = made(features, grows(), shop, row_store=store)
    apart = made(features, grows(), shop, row_store="reference", shares_keys=False)
    view = PooledFirstOrderView(at_once, ["item", "shop"])
    pooled, first_order = PooledView(apart, ["item", "shop"]), PooledView(apart, ["linear.item", "linear.shop"])
    rng = np.random.default_rng(1)
    for ids in batches(["a", "b", "c"], rng, weighted=weighted):
        gradients: list[Tensor | None] = []
        for both in (view(ids), (pooled(ids), first_order(ids))):
            weights = ids.weights
            assert (weights is None) is not weighted
            total = both[0].square().sum() + (both[1].sum(dim=1) - 0.5).square().sum()
            total.backward()
            gradients.append(both[0].detach())
        assert torch.allclose(*[g for g in gradients if g is not None], atol=1e-4)
        at_once.step()
        apart.step()
    for name in ("item", "shop", "linear.item", "linear.shop"):
        assert _equal_keys(at_once.keys(name), apart.keys(name))
        assert torch.allclose(at_once.weight(name), apart.weight(name), atol=1e-4), name
    assert at_once.weight("linear.item").abs().max() > 0.01


def _equal_keys(ours: Tensor | None, theirs: Tensor | None) -> bool:
    return ours is theirs if ours is None or theirs is None else torch.equal(ours, theirs)


@pytest.mark.parametrize("store", ["host", "reference"])
def test_ids_weights_get_the_gradients_of_both(store: Any) -> None:
    features = [Feature(name="a", table="item", weights_column="w")]
    tables = made(features, grows(), row_store=store)
    view = PooledFirstOrderView(tables, ["item"])
    ids = torch.tensor([3, 4])
    tables.set("item", ids, torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8]]))
    tables.set("linear.item", ids, torch.tensor([[10.0], [20]]))
    weights = torch.ones(2, requires_grad=True)
    pooled, first_order = view(JaggedIds(("a",), ids, torch.tensor([2]), 1, weights))
    assert (pooled.tolist(), first_order.tolist()) == ([[6, 8, 10, 12]], [[30]])
    (pooled.sum() + first_order.sum()).backward()  # type: ignore[no-untyped-call]
    assert weights.grad is not None
    assert weights.grad.tolist() == [20, 46]


def test_an_id_is_encoded_and_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = made([Feature(name="a", table="item", encoder=Identity())], grows(admission=MinCount(count=2)))
    encoded: Counter[str] = Counter()
    for read in tables.features:
        encode = read.encoder.encode

        def counted(ids: Any, encode: Any = encode, table: str = read.table.name) -> Any:
            encoded[table] += len(ids)
            return encode(ids)

        monkeypatch.setattr(read.encoder, "encode", counted)
    view = PooledFirstOrderView(tables, ["item"])
    ids = JaggedIds.of({"a": [[1, 2], [2]]})
    sum(out.sum() for out in view(ids)).backward()
    tables.step()
    assert encoded == {"item": 3}
    stats = tables.stats()
    for name in ("item", "linear.item"):
        assert tables.keys(name).tolist() == [2]
        assert (stats[name].rows, stats[name].counts["admitted"], stats[name].counts["waiting"]) == (1, 1, 1)
    assert "keys" in stats["item"].bytes_by_column
    assert "keys" not in stats["linear.item"].bytes_by_column


@pytest.mark.parametrize("store", ["host", "reference"])
def test_rows_are_made_and_deleted_with_their_first_order_weights(store: Any) -> None:
    tables = made([Feature(name="a", table="item", encoder=Identity())], grows(), row_store=store)
    ids = torch.tensor([5, 6, 7])
    tables.set("item", ids, torch.ones(3, 4))
    assert tables.keys("linear.item").tolist() == [5, 6, 7]
    tables.set("linear.item", ids[:1], torch.full((1, 1), 2.0))
    tables.delete("linear.item", ids[:2])
    for name in ("item", "linear.item"):
        assert tables.keys(name).tolist() == [7]
    tables.set("item", ids, torch.ones(3, 4))
    assert tables.weight("linear.item").tolist() == [[0.0]] * 3  # of the new rows, not of the deleted ones


def test_what_is_pooled_otherwise_or_not_at_all_has_keys_of_its_own() -> None:
    tables = [grows(), grows("tag"), linear_of(grows()), linear_of(grows("tag"))]
    features = [
        Feature(name="a", table="item"),
        Feature(name="t", table="tag", pooling="none"),
        Feature(name="a", table="linear.item"),
        Feature(name="t", table="linear.tag", pooling="sum"),
    ]
    assert [t.keys_of for t in stored_tables(tables, features, 0)] == [None, None, "item", None]
    assert [t.keys_of for t in stored_tables(tables, features, 0, shares_keys=False)] == [None] * 4
    assert stored_tables(tables[2:], features[2:], 0)[0].keys_of is None  # as of a model with first-order weights alone


@pytest.mark.parametrize("shares", [True, False])
def test_a_version_says_whether_keys_are_shared(tmp_path: Path, shares: bool) -> None:
    def fresh(**options: Any) -> Tables:
        return made(
            [Feature(name="a", table="item", encoder=Identity())], grows(max_rows=30, cold_row="trained"), **options
        )

    tables, state = fresh(shares_keys=shares), StateFolder(tmp_path)
    view, rng = PooledFirstOrderView(tables, ["item"]), np.random.default_rng(2)
    with LeaseHolder(state) as holder:
        versions = VersionWriter(holder, "resume", tables)
        for ids in batches(["a"], rng, weighted=False, count=4):
            sum(out.square().sum() + out.sum() for out in view(ids)).backward()
            tables.step()
            versions.cut({}, {})
        versions.close()
    chain = state.chain("resume", 4)
    assert len(chain) == 4  # a snapshot and three deltas
    assert shares_keys(chain[0]) is shares
    again = fresh(shares_keys=shares)
    load(state, chain, again)
    for name in ("item", "linear.item"):
        assert torch.equal(again.keys(name), tables.keys(name))
        assert torch.equal(again.weight(name), tables.weight(name))
    with pytest.raises(StateError, match=r"table linear\.item: .*differ in shares_keys"):
        load(state, chain, fresh(shares_keys=not shares))


def test_row_numbers_of_other_keys_are_refused() -> None:
    stored = stored_tables([grows(), grows("shop")], [], 0)
    store = HostRowStore(stored, [0, 1])
    lookup = Lookup((0,), torch.tensor([1]), torch.tensor([0, 1]), None, 1, beside=(1,))
    with pytest.raises(ValueError, match="share their keys"):
        store.train_pooled(lookup)


def test_a_frozen_table_is_read_beside_its_first_order_weights() -> None:
    features = [Feature(name=n, table=t, encoder=Identity()) for n, t in (("a", "item"), ("b", "shop"))]
    tables = made(features, grows(optimizer=Sgd(learning_rate=1.0)), grows("shop", trainable=False))
    tables.set("shop", torch.tensor([1]), torch.ones(1, 4))
    view = PooledFirstOrderView(tables, ["item", "shop"])
    for _ in range(2):
        pooled, first_order = view(JaggedIds.of({"a": [[1]], "b": [[1, 2]]}))
        (pooled.sum() + first_order.sum()).backward()
        tables.step()
    assert pooled[0, 4:].tolist() == [1.0] * 4
    assert first_order.tolist() == [[-1.0, 0.0]]
    assert tables.keys("shop").tolist() == [1]

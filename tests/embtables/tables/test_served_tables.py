"""`ServedTables`: views, vectors and keys read what the trained tables have, on any thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from embtables import CollisionlessTable, Feature, FixedTable, Tables
from embtables.errors import ConfigError, DataError, StateError
from embtables.inputs.batch import JaggedIds
from embtables.lookup.views import PooledFirstOrderView, PooledView, SequenceView
from embtables.rows.content import TableContent
from embtables.schema import MultiHash, Normal, Sgd, Table
from embtables.tables.lookup_tables import LookupTables
from embtables.tables.served_tables import ServedTables
from tests.embtables.ids.encoders_for_tests import Digits, registered

LEARNS: dict[str, Any] = {"optimizer": Sgd(learning_rate=0.5), "initializer": Normal(std=1.0)}
ITEM = CollisionlessTable(name="item", dim=4, ttl_seconds=100, **LEARNS)
SHOP = FixedTable(name="shop", dim=3, num_rows=40, **LEARNS)
TABLES: list[Table] = [ITEM, SHOP]
SEEN = Feature(name="seen", table="item", pooling="mean", weights_column="w")


@pytest.fixture(autouse=True, scope="module")
def _digits() -> Iterator[None]:
    with registered():
        yield


def features(*, products: bool = True) -> list[Feature]:
    """Of every kind of pooling and of encoder."""
    found = [
        SEEN,
        Feature(name="two", table="item", encoder=MultiHash()),
        Feature(name="digits", table="item", encoder=Digits(base=10, combine="concat")),
        Feature(name="product", table="item", encoder=Digits(base=10, combine="product")),
        Feature(name="past", table="item", pooling="none"),
        Feature(name="shop", table="shop", pooling="sum"),
    ]
    return [feature for feature in found if products or feature.name != "product"]


def model_tables(*, products: bool = True) -> tuple[list[Table], list[Feature]]:
    """Embeddings, and first-order weights that share their keys."""
    linear: list[Table] = [t.model_copy(update={"name": f"linear.{t.name}", "dim": 1}) for t in TABLES]
    of_linear = [
        f.model_copy(update={"table": f"linear.{f.table}"}) for f in features(products=products) if f.pooling != "none"
    ]
    return [*TABLES, *linear], [*features(products=products), *of_linear]


def batch(rng: np.random.Generator, limit: int = 60) -> JaggedIds:
    names = tuple(feature.name for feature in features())
    lengths = torch.from_numpy(rng.integers(0, 4, len(names) * 8))
    ids = torch.from_numpy(rng.integers(0, limit, int(lengths.sum())))
    return JaggedIds(names, ids, lengths, 8, torch.rand(len(ids)))


def trained(*, products: bool = True) -> Tables:
    made, rng = Tables(*model_tables(products=products), seed=3), np.random.default_rng(0)
    views = [PooledFirstOrderView(made, ["item", "shop"]), SequenceView(made)]
    for step in range(5):
        made.advance(torch.tensor([(1000 + 30 * step) * 1_000_000]))
        ids = batch(rng)
        for rows in (*views[0](ids), *(each.values for each in views[1](ids).values())):
            rows.backward(torch.randn(rows.shape))
        made.step()
    return made


def served_of(made: Tables, *, products: bool = True) -> ServedTables:
    served = ServedTables(*model_tables(products=products), seed=3)
    for name, content in made.content().items():
        served.take_over(name, content)
    return served


def read(tables: LookupTables, ids: JaggedIds) -> list[torch.Tensor]:
    views = PooledView(tables, ["shop", "item"]), PooledFirstOrderView(tables, ["item", "shop"]), SequenceView(tables)
    for view in views:
        view.eval()
    with torch.no_grad():
        return [views[0](ids), *views[1](ids), *(rows.values for rows in views[2](ids).values())]


@pytest.mark.parametrize("products", [False, True])  # with them, first-order weights are looked up alone
def test_views_read_the_trained_rows(products: bool) -> None:
    made, rng = trained(products=products), np.random.default_rng(1)
    served = served_of(made, products=products)
    for _ in range(10):
        ids = batch(rng, limit=90)
        for found, wanted in zip(read(served, ids), read(made, ids), strict=True):
            assert torch.equal(found, wanted)


def test_vectors_and_keys_are_read_as_of_the_trained_tables() -> None:
    made = trained()
    served = served_of(made)
    for feature in ("seen", "two", "digits", "product"):
        ids = torch.arange(90)
        assert torch.equal(served.get("item", ids, feature=feature), made.get("item", ids, feature=feature))
        assert torch.equal(served.known("item", ids, feature=feature), made.known("item", ids, feature=feature))
    _, keys = made.keys_of("item", torch.arange(90), "seen")
    known = made.known("item", torch.arange(90), feature="seen")
    assert served.is_cold("item", keys).tolist() == (~known).tolist()
    out, is_cold = np.empty((90, 4), np.float32), np.empty(90, np.bool_)
    count = served.gather_into(served.number("item"), keys.numpy(), out, is_cold)
    assert np.array_equal(out, served.read("item", keys).numpy())
    assert is_cold.tolist() == served.is_cold("item", keys).tolist()
    of_trained, cold_of_trained = np.empty_like(out), np.empty_like(is_cold)
    assert made.gather_into(made.number("item"), keys.numpy(), of_trained, cold_of_trained) == count
    assert np.array_equal(of_trained, out)
    assert np.array_equal(cold_of_trained, is_cold)
    assert count == is_cold.sum() > 0
    content = made.table_content("item")
    clocks = dict(zip(content.keys.tolist(), content.seen.tolist(), strict=True))
    assert served.seen("item", keys).tolist() == [clocks.get(key, 0) for key in keys.tolist()]
    assert len(set(clocks.values())) > 1
    assert served.seen("shop", torch.arange(40)).tolist() == [0] * 40
    assert not served.is_cold("shop", torch.arange(40)).any()
    assert served.num_rows("item") == len(made.keys("item"))
    assert served.now("item") == 1120


def test_threads_read_at_once_beside_one_that_takes_versions_over() -> None:
    made = trained()
    served, ids = served_of(made), batch(np.random.default_rng(2))
    wanted, contents, wrong = read(made, ids), made.content(), list[int]()

    def look(number: int) -> None:
        try:
            for _ in range(30):
                if not all(map(torch.equal, read(served, ids), wanted)):
                    wrong.append(number)
        except BaseException:
            wrong.append(number)
            raise

    readers = [threading.Thread(target=look, args=(number,)) for number in range(4)]
    for reader in readers:
        reader.start()
    while any(reader.is_alive() for reader in readers):
        for name, content in contents.items():
            served.take_over(name, content)
    for reader in readers:
        reader.join()
    assert not wrong


def test_nothing_learns() -> None:
    served = served_of(trained())
    view, ids = PooledView(served, ["item"]), batch(np.random.default_rng(0))
    with pytest.raises(ConfigError, match="ServedTables only reads rows: put the model"):
        view(ids)
    with pytest.raises(ConfigError, match="ServedTables only reads rows"):
        view.state_dict()
    assert not hasattr(served, "step")


def test_what_is_no_content_is_refused() -> None:
    served = ServedTables([ITEM], [SEEN], seed=3)
    with pytest.raises(ConfigError, match="there is no such table; there are: item"):
        served.take_over("itm", trained().table_content("item"))
    with pytest.raises(ConfigError, match="must be a table's content, received a dict"):
        served.take_over("item", {})  # type: ignore[arg-type]
    without = TableContent(np.arange(2), {}, np.zeros(2, np.uint32), np.zeros(2, np.uint32))
    with pytest.raises(StateError, match=r"weights to take over are missing, the table needs \(2, 4\)"):
        served.take_over("item", without)
    with pytest.raises(DataError, match="key 40 is outside a table of 40 rows"):
        ServedTables(*model_tables(), seed=3).read("shop", torch.tensor([40]))

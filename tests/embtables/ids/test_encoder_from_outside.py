"""An encoder that a user adds: it is trained, sharded, saved and asked like those of the package."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torchrec import KeyedJaggedTensor

from embtables import (
    Artifacts,
    CollisionlessTable,
    EmbeddingBagCollection,
    EmbeddingCollection,
    Encoder,
    EncoderConfig,
    EncoderSpec,
    Feature,
    FixedTable,
    Tables,
    register_encoder,
)
from embtables.errors import ConfigError, DataError, StateError
from embtables.ids import make_encoder
from embtables.ids.mix import Ids
from embtables.rows.stored_table import StoredTable
from embtables.schema import Sgd, Table, validate
from embtables.shard.placement import replicated
from embtables.shard.world import World
from embtables.state.evolve.evolution import Evolution, StateSchema
from embtables.state.folder.version_folder import LeaseHolder, StateFolder
from embtables.state.read.load import load
from embtables.state.read.version_reader import read_artifacts
from embtables.state.tools.compact import compact
from embtables.state.tools.figures import figures_of
from embtables.state.write.version_writer import VersionWriter
from tests.contents import flat, same
from tests.embtables.ids.encoders_for_tests import Digits, DigitsEncoder, registered
from tests.shard.threads_for_tests import in_threads
from tests.shard.training_for_tests import assert_same_held, held

BASE, NUM_IDS, DIM = 10, 100, 4


@pytest.fixture(autouse=True, scope="module")
def _digits() -> Iterator[None]:
    with registered():
        yield


def configs(kind: str) -> list[Table]:
    learns = Sgd(learning_rate=0.5)
    if kind == "fixed":
        return [FixedTable(name="t", dim=DIM, num_rows=2 * BASE, optimizer=learns)]
    return [CollisionlessTable(name="t", dim=DIM, optimizer=learns)]


def made(kind: str = "fixed", combine: Any = "concat", order: str | None = None, **options: Any) -> Tables:
    """A table that a pooled feature and a sequence read by their ids' two digits."""
    encoder = Digits(base=BASE, num_digits=2, combine=combine, order=order)
    features = [
        Feature(name="bag", table="t", encoder=encoder, pooling="mean"),
        Feature(name="list", table="t", encoder=encoder, pooling="none"),
    ]
    return Tables(configs(kind), features, seed=1, **options)


def train(tables: Tables, steps: range) -> list[np.ndarray[Any, Any]]:
    """Steps on 8 rows, of which each rank has a part. What the first `steps` read.

    Gradients are small multiples of 1/8 and lists have a power of two ids, so that their sums have no rounding.
    """
    rank, size = tables.world.rank, tables.world.size
    own = slice(8 * rank // size, 8 * (rank + 1) // size)
    bags, lists = EmbeddingBagCollection.over(tables), EmbeddingCollection.over(tables)
    read = []
    for step in steps:
        rng = np.random.default_rng(step)
        ids = rng.integers(0, NUM_IDS, (2, 8, 2))[:, own]  # (feature, row, place in the list)
        gradients = rng.integers(-8, 9, (2, 8, 2, 2 * DIM))[:, own] / 8
        lengths = torch.full((2 * ids.shape[1],), 2)
        batch = KeyedJaggedTensor(["bag", "list"], torch.from_numpy(ids.reshape(-1)), lengths=lengths)
        pooled, sequence = bags(batch)["bag"], lists(batch)["list"].values()
        read += [pooled.detach().numpy(), sequence.detach().numpy()]
        of_rows, of_ids = (torch.from_numpy(g.astype(np.float32)) for g in gradients)
        width = pooled.shape[1]
        loss = (pooled * of_rows[:, 0, :width]).sum() + (sequence * of_ids[..., :width].reshape(-1, width)).sum()
        loss.backward()
        tables.step()
    return read


@pytest.mark.parametrize("store", ["host", "reference"])
@pytest.mark.parametrize("kind", ["fixed", "collisionless"])
@pytest.mark.parametrize("combine", ["concat", "sum", "mean", "product"])
def test_two_ranks_train_it_like_one(store: Any, kind: str, combine: Any) -> None:
    def work(world: World | None) -> Any:
        tables = made(kind, combine, row_store=store, world=world)
        return {"read": train(tables, range(5)), "held": held(tables), "vectors": tables.get("t", ids, feature="bag")}

    ids = torch.arange(NUM_IDS)
    whole, parts = work(None), in_threads(2, work)
    near = 1e-5 if combine == "product" else 0.0  # products have roundings of their own, in the order of the sums
    assert_same_held([part["held"] for part in parts], whole["held"], near)
    for step, expected in enumerate(whole["read"]):
        assert expected.shape[1] == (2 * DIM if combine == "concat" else DIM)
        ours = np.concatenate([part["read"][step] for part in parts])
        np.testing.assert_allclose(ours, expected, atol=near, rtol=near, err_msg=f"read {step}")
    for part in parts:
        np.testing.assert_allclose(part["vectors"], whole["vectors"], atol=near, rtol=near)


@pytest.mark.parametrize("store", ["host", "reference"])
@pytest.mark.parametrize("kind", ["fixed", "collisionless"])
def test_a_version_holds_what_it_learned(store: Any, kind: str, tmp_path: Path) -> None:
    tables, state = made(kind, row_store=store), StateFolder(tmp_path)
    with LeaseHolder(state) as writer:
        chain = VersionWriter(writer, "resume", tables)
        for cut in range(2):
            train(tables, range(3 * cut, 3 * cut + 3))
            chain.cut({}, {})
        chain.wait()
        chain.close()
    again = made(kind, row_store=store)
    load(state, state.chain("resume", 2), again)
    assert same(flat(again), flat(tables))
    ids = torch.arange(NUM_IDS)
    vectors = again.get("t", ids, feature="bag")
    assert torch.equal(vectors, tables.get("t", ids, feature="list"))
    if kind == "fixed":
        weight = tables.weight("t")
        assert torch.equal(vectors, torch.cat([weight[ids % BASE], weight[BASE + ids // BASE]], dim=1))
    for change in (lambda: again.set("t", ids, vectors[:, :DIM]), lambda: again.delete("t", ids)):
        with pytest.raises(ConfigError, match="table t: feature 'bag' has 2 rows per id, so an id has no row of its"):
            change()


def test_data_of_an_encoder_travels_with_every_version(tmp_path: Path) -> None:
    order = tmp_path / "order"
    order.write_bytes(np.arange(BASE)[::-1].astype(np.int64).tobytes())
    tables, state, ids = made(order=str(order)), StateFolder(tmp_path / "state"), torch.arange(NUM_IDS)
    with LeaseHolder(state) as writer:
        chain = VersionWriter(writer, "resume", tables)
        for cut in range(3):
            train(tables, range(2 * cut, 2 * cut + 2))
            chain.cut({}, {"schema": schema_of(tables)})
        chain.wait()
        chain.close()
        order.unlink()
        versions = [state.chain("resume", 3), [compact(writer, "resume", keep=9).version]]
    for version in versions:
        assert "artifact.bag.order.bin" in version[0].files
        found = read_artifacts(state, version[0])
        assert {name: dict(of) for name, of in found.items()} == {n: dict(of) for n, of in tables.artifacts.items()}
        again = made(order=str(order), artifacts=found)
        load(state, version, again)
        assert torch.equal(again.get("t", ids, feature="bag"), tables.get("t", ids, feature="bag"))
        with pytest.raises(StateError, match="feature bag: its encoder has other data than the version"):
            load(state, version, made(artifacts={"bag": Artifacts({"order": bytes(80)})}))
    assert figures_of(state, versions[0], [], 1)[0].top[0].id is None
    path = state.folder.path(state.file(versions[1][0], "artifact.list.order.bin"))
    path.write_bytes(bytes(80))
    with pytest.raises(StateError, match=r"artifact\.list\.order\.bin: is damaged"):
        read_artifacts(state, versions[1][0])


def schema_of(tables: Tables) -> dict[str, Any]:
    features = dict.fromkeys(read.feature for read in tables.features)
    return {
        "tables": [t.model_dump(mode="json") for t in tables.configs],
        "features": [f.model_dump(mode="json") for f in features],
    }


def test_its_meaning_decides_what_goes_on() -> None:
    def schema(artifacts: Any = None, num_rows: int = 20, **options: Any) -> StateSchema:
        table = FixedTable(name="t", dim=4, num_rows=num_rows, optimizer=Sgd(learning_rate=0.1))
        feature = Feature(name="f", table="t", encoder=Digits(**options))
        return StateSchema((StoredTable(table, 1),), (feature,), artifacts or {})

    assert Evolution(schema(), schema(num_rows=40)).kept, "its keys do not depend on num_rows"
    for other in ({"base": 9}, {"combine": "sum"}):
        with pytest.raises(StateError, match=r"feature 'f' has encoder .* ids mean other keys"):
            Evolution(schema(), schema(**other))
    data = {"f": Artifacts({"order": bytes(80)})}
    assert Evolution(schema(data), schema(data)).kept
    with pytest.raises(StateError, match=r"feature 'f' has encoder .* ids mean other keys"):
        Evolution(schema(data), schema({"f": Artifacts({"order": bytes(160)})}))


def test_figures_and_placement_ask_the_encoder(tmp_path: Path) -> None:
    features = [Feature(name="f", table="t", encoder=Digits(num_digits=3))]
    table = FixedTable(name="t", dim=4, num_rows=3 * 32, optimizer=Sgd(learning_rate=0.1))
    assert replicated([table], features, batch_rows=2 * 32 * 32, world_size=2) == {"t"}
    assert replicated([table], features, batch_rows=2 * 31 * 32, world_size=2) == frozenset()
    tables, state = made(), StateFolder(tmp_path)
    train(tables, range(2))
    with LeaseHolder(state) as writer:
        chain = VersionWriter(writer, "resume", tables)
        chain.cut({}, {"schema": schema_of(tables)})
        chain.wait()
        chain.close()
    (found,) = figures_of(state, state.chain("resume", 1), ["t"], 1)
    assert found.collisions is not None
    assert not found.collisions.estimated


def test_a_mistake_of_an_encoder_is_named() -> None:
    tables = made()
    with pytest.raises(DataError, match="feature bag: has more than 2 digits"):
        tables.get("t", torch.tensor([100]), feature="bag")

    class Short(EncoderConfig):
        kind: Literal["short"] = "short"

    class ShortEncoder(Encoder[Short]):
        num_keys = 2

        def keys(self, ids: Ids) -> Ids:
            return ids

    spec = EncoderSpec(Short, ShortEncoder)
    with pytest.raises(ConfigError, match=r"feature f: encoder 'short' made keys \(3,\) int64 from 3 ids; it must"):
        spec.load(Short(), None, "f").encode(np.arange(3))
    with pytest.raises(ConfigError, match="Short is not a registered encoder"):
        validate(Feature, {"name": "f", "table": "t", "encoder": Short()})
    with pytest.raises(ConfigError, match=r"'kind' must be one of: identity, hash, multi_hash, .*digits"):
        validate(Feature, {"name": "f", "table": "t", "encoder": {"kind": "short"}})
    with pytest.raises(ConfigError, match="encoder 'digits' is already DigitsEncoder"):
        register_encoder(EncoderSpec(Digits, DigitsEncoder))
    with pytest.raises(ConfigError, match="encoder 'short' has only a configuration"):
        make_encoder(Short(), None)
    with pytest.raises(ConfigError, match=r"artifact 'a\.b': a name has 1 to 64 letters"):
        Artifacts({"a.b": b""})


def test_its_schema_goes_through_text() -> None:
    text = {"name": "f", "table": "t", "encoder": {"kind": "digits", "base": 3}}
    feature = validate(Feature, text)
    assert feature.encoder == Digits(base=3)
    assert validate(Feature, feature.model_dump(mode="json")) == feature
    with pytest.raises(ConfigError, match=r"encoder\.base: Input should be greater than or equal to 2"):
        validate(Feature, {**text, "encoder": {"kind": "digits", "base": 1}})

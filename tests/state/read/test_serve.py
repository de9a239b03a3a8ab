"""`load_served`: fresh tables for inference read as the trained tables do, whatever the chain and the pieces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from embtables import CollisionlessTable, Feature, FixedTable, LeaseHolder, StateFolder, Tables, VersionWriter
from embtables.errors import ConfigError, StateError
from embtables.inputs.batch import JaggedIds
from embtables.lookup.views import PooledView
from embtables.schema import Adagrad, DenseDecay, Normal
from embtables.state.format.manifest import Manifest
from embtables.state.read import serve
from embtables.state.read.serve import load_served
from embtables.tables.served_tables import ServedTables

# Every sixth step makes the scale 1 again.
LEARNS: dict[str, Any] = {
    "optimizer": Adagrad(learning_rate=0.5, weight_decay=DenseDecay(rate=1.96)),
    "initializer": Normal(std=1.0),
}
CONFIGS = [
    CollisionlessTable(name="item", dim=5, ttl_seconds=90, cold_row="trained", **LEARNS),
    FixedTable(name="shop", dim=3, num_rows=3000, **LEARNS),
]
FEATURES = [Feature(name=name, table=name) for name in ("item", "shop")]
CUTS = 9
ITEMS, SHOPS = torch.arange(-50, 4050), torch.arange(3000)


def made() -> Tables:
    return Tables(CONFIGS, FEATURES, seed=3)


def fresh(**changes: Any) -> ServedTables:
    return ServedTables(**{"tables": CONFIGS, "features": FEATURES, "seed": 3, **changes})


def read(tables: Tables | ServedTables) -> list[torch.Tensor]:
    return [tables.get("item", ITEMS), tables.get("shop", SHOPS), tables.known("item", ITEMS)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[StateFolder, list[list[torch.Tensor]]]:
    """A chain of each projection, and what the tables read at each version."""
    state, tables, found = StateFolder(tmp_path_factory.mktemp("state")), made(), []
    view, rng = PooledView(tables), np.random.default_rng(0)
    with LeaseHolder(state) as holder:
        full = VersionWriter(holder, "resume", tables, keep=99)
        weights = VersionWriter(holder, "serving", tables, projection="weights", keep=99)
        for cut in range(CUTS):
            tables.advance(torch.tensor([(1000 + 30 * cut) * 1_000_000]))
            ids = torch.from_numpy(np.concatenate([rng.integers(0, 4000, 1500), rng.integers(0, 3000, 500)]))
            lengths = torch.tensor([3, 0] * 500 + [1] * 500 + [0] * 500)
            out = view(JaggedIds(("item", "shop"), ids, lengths, 1000))
            out.backward(torch.from_numpy(rng.standard_normal(out.shape).astype(np.float32)))
            tables.step()
            tables.delete("item", ITEMS[cut::100])
            for writer in (full, weights):
                writer.cut({"dense": np.arange(cut, cut + 4.0)}, {"schema": {}, "cut": cut})
            found.append(read(tables))
        for writer in (full, weights):
            writer.close()
            assert writer.failures == []
    return state, found


def chain_of(state: StateFolder, purpose: Any, length: int = CUTS) -> list[Manifest]:
    found = state.chain(purpose, length)
    assert [manifest.sequence for manifest in found] == list(range(1, length + 1))
    return found


@pytest.mark.parametrize("purpose", ["resume", "serving"])
@pytest.mark.parametrize("length", [1, 4, CUTS])
@pytest.mark.parametrize("piece_bytes", [1 << 26, 20_000])
def test_tables_read_as_the_trained_ones_did(
    trained: tuple[StateFolder, list[list[torch.Tensor]]],
    purpose: str,
    length: int,
    piece_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(serve, "PIECE_BYTES", piece_bytes)
    state, wanted = trained
    served, chain = fresh(), chain_of(state, purpose, length)
    assert len(serve.pieces(chain[0])) > 3 or piece_bytes > 20_000
    version = load_served(state, chain, served)
    assert version.content["cut"] == length - 1
    assert version.tensors["dense"].tolist() == [length - 1.0, length, length + 1.0, length + 2.0]
    assert all(map(torch.equal, read(served), wanted[length - 1]))
    assert served.now("item") == chain[-1].tables["item"].now


def test_a_scale_falls_and_rises_along_the_chain(trained: tuple[StateFolder, Any]) -> None:
    scales = [manifest.tables["item"].scale for manifest in chain_of(trained[0], "serving")]
    assert (np.diff(scales) < 0).any()
    assert (np.diff(scales) > 0).any()


def test_only_fresh_tables_are_filled(trained: tuple[StateFolder, Any]) -> None:
    state, chain = trained[0], chain_of(trained[0], "serving", 2)
    served = fresh()
    load_served(state, chain[:1], served)
    with pytest.raises(StateError, match="table item: holds rows already; a snapshot is loaded into fresh tables"):
        load_served(state, chain, served)
    with pytest.raises(ConfigError, match="argument tables: must be ServedTables, received a Tables"):
        load_served(state, chain, made())  # type: ignore[arg-type]


def test_a_chain_that_is_not_of_these_tables_is_refused(trained: tuple[StateFolder, Any]) -> None:
    state, chain = trained[0], chain_of(trained[0], "serving", 2)
    with pytest.raises(StateError, match="another seed wrote it"):
        load_served(state, chain, fresh(seed=4))
    with pytest.raises(StateError, match="table shop: is not part of these tables"):
        load_served(state, chain, fresh(tables=CONFIGS[:1], features=FEATURES[:1]))
    backwards = [chain[1].model_copy(update={"parent": None}), chain[0]]
    with pytest.raises(StateError, match="its clock is 1000, that of serving-2 is 1030"):
        load_served(state, backwards, fresh())


def test_a_damaged_block_is_named(tmp_path: Path) -> None:
    state, tables = StateFolder(tmp_path), made()
    tables.set("item", ITEMS, torch.ones(len(ITEMS), 5))
    with LeaseHolder(state) as holder:
        writer = VersionWriter(holder, "serving", tables, projection="weights")
        writer.cut({}, {"schema": {}})
        writer.close()
    chain = chain_of(state, "serving", 1)
    path = tmp_path / state.file(chain[0], "item.rows.0.arrow")
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    with pytest.raises(StateError, match=r"item\.rows\.0\.arrow: is damaged"):
        load_served(state, chain, fresh())


def test_more_rows_than_a_file_can_hold_are_not_reserved(trained: tuple[StateFolder, Any]) -> None:
    state, chain = trained[0], chain_of(trained[0], "serving", 1)
    name = "item.rows.0.arrow"
    lied = chain[0].files | {name: chain[0].files[name].model_copy(update={"rows": 10**15})}
    served = fresh()
    with pytest.raises(StateError, match="rows, the manifest says 1000000000000000"):
        load_served(state, [chain[0].model_copy(update={"files": lied})], served)
    assert served.num_bytes("item") < 2**27

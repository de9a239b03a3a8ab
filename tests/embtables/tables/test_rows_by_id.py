"""Rows as a user sees them: by raw id, whatever the table and its encoder; and their erasure, down to the bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchrec import KeyedJaggedTensor

from embtables import CollisionlessTable, EmbeddingBagCollection, Feature, FixedTable, Tables
from embtables.errors import ConfigError, DataError, StateError
from embtables.schema import Adagrad, Constant, Hash, Identity, MinCount, MultiHash, Sgd
from embtables.state.folder.version_folder import LeaseHolder, StateFolder
from embtables.state.read.load import load as load_version
from embtables.state.write.version_writer import VersionWriter
from tests.contents import flat, same

LEARNS = Adagrad(learning_rate=0.1)


def build(store: Any = "host", *, fixed: bool = False, **changes: Any) -> Tables:
    common: dict[str, Any] = {"name": "t", "dim": 4, "optimizer": LEARNS, "initializer": Constant(value=0.5), **changes}
    table = FixedTable(num_rows=50, **common) if fixed else CollisionlessTable(**common)
    return Tables([table], [Feature(name="f", table="t", encoder=Hash(seed=3))], seed=1, row_store=store)


def learn(tables: Tables, ids: list[int]) -> None:
    batch = KeyedJaggedTensor(["f"], torch.tensor(ids), lengths=torch.ones(len(ids), dtype=torch.int64))
    EmbeddingBagCollection.over(tables)(batch).values().sum().backward()
    tables.step()


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("store", ["host", "reference", "fbgemm"])
def test_rows_are_read_set_and_deleted_by_id(store: Any, fixed: bool) -> None:
    if store == "fbgemm" and not fixed:
        return
    tables = build(store, fixed=fixed)
    ids = torch.tensor([7, -9, 2**62])
    learn(tables, ids.tolist())
    batch = KeyedJaggedTensor(["f"], ids, lengths=torch.ones(3, dtype=torch.int64))
    with torch.no_grad():
        assert torch.equal(tables.get("t", ids), EmbeddingBagCollection.over(tables)(batch).values())
    rows = torch.arange(12.0).view(3, 4)
    tables.set("t", ids, rows)
    assert torch.equal(tables.get("t", ids), rows)
    twice = torch.cat([ids, ids[1:2]])
    tables.set("t", twice, torch.cat([-rows, rows[1:2]]))
    assert torch.equal(tables.get("t", ids), torch.stack([-rows[0], rows[1], -rows[2]]))  # of an id the last row counts
    tables.set("t", ids, rows)
    tables.delete("t", ids[:1])
    assert torch.equal(tables.get("t", ids)[1:], rows[1:])
    assert torch.equal(tables.get("t", ids)[0], torch.full((4,), 0.5 if fixed else 0.0))
    learn(tables, [7])
    fresh = build(store, fixed=fixed)
    learn(fresh, [7])
    assert torch.equal(tables.get("t", ids[:1]), fresh.get("t", ids[:1]))  # optimizer state was gone too


@pytest.mark.parametrize("store", ["host", "reference"])
def test_an_id_that_waits_or_was_never_seen_gets_a_row_by_being_set(store: Any) -> None:
    tables = build(store, admission=MinCount(count=3), ttl_seconds=10, cold_row="trained")
    tables.advance(torch.tensor([1_000_000]))
    learn(tables, [1])
    assert tables.stats()["t"].counts["waiting"] == 1 if store == "host" else True
    tables.set("t", torch.tensor([1, 2]), torch.ones(2, 4))
    assert torch.equal(tables.get("t", torch.tensor([1, 2])), torch.ones(2, 4))
    keys = tables.keys("t")
    assert keys is not None
    assert len(keys) == 2
    # An id that waited is deleted as well: its next occurrence is its first.
    learn_at(tables, 2, [5, 5])
    tables.delete("t", torch.tensor([5]))
    learn_at(tables, 3, [5])
    keys = tables.keys("t")
    assert keys is not None
    assert len(keys) == 2
    # A row that is set is seen: it lives on where one that is not would be past its ttl.
    learn_at(tables, 10, [1])
    tables.set("t", torch.tensor([2]), torch.ones(1, 4))
    tables.advance(torch.tensor([14_000_000]))
    assert torch.equal(tables.get("t", torch.tensor([2])), torch.ones(1, 4))
    # A row past its ttl is fresh when it is set.
    tables.advance(torch.tensor([100_000_000]))
    cold = tables.get("t", torch.tensor([1]))
    assert not torch.equal(cold, torch.ones(1, 4))
    tables.set("t", torch.tensor([1]), torch.full((1, 4), 2.0))
    assert torch.equal(tables.get("t", torch.tensor([1])), torch.full((1, 4), 2.0))


def learn_at(tables: Tables, second: int, ids: list[int]) -> None:
    tables.advance(torch.full((len(ids),), second * 1_000_000))
    learn(tables, ids)


def test_changes_list_what_was_set_and_deleted() -> None:
    for store in ("host", "reference"):
        tables = build(store)
        learn(tables, [1, 2, 3])
        cut = tables.draw_cut()
        tables.set("t", torch.tensor([1, 9]), torch.ones(2, 4))
        tables.delete("t", torch.tensor([3]))
        changes = tables.changes("t", cut)
        assert len(changes.keys) == 2
        assert torch.equal(changes.weight, torch.ones(2, 4))
        assert len(changes.tombstones) == 1
        fixed = build(store, fixed=True)
        learn(fixed, [1, 2, 3])
        cut = fixed.draw_cut()
        fixed.delete("t", torch.tensor([3]))
        assert torch.equal(fixed.changes("t", cut).weight, torch.full((1, 4), 0.5))


def test_what_cannot_be_is_refused() -> None:
    tables = Tables(
        [
            CollisionlessTable(name="t", dim=2, optimizer=LEARNS),
            FixedTable(name="m", dim=2, num_rows=9, optimizer=LEARNS),
        ],
        [
            Feature(name="a", table="t", encoder=Identity()),
            Feature(name="b", table="t", encoder=Hash(seed=1)),
            Feature(name="c", table="m", encoder=MultiHash(num_hashes=2)),
        ],
        seed=0,
    )
    one = torch.tensor([1])
    with pytest.raises(ConfigError, match="table x: there is no such table; there are: t, m"):
        tables.get("x", one)
    with pytest.raises(ConfigError, match="table t: its features encode ids differently; name one of: a, b"):
        tables.delete("t", one)
    with pytest.raises(ConfigError, match="table t: feature 'c' does not read it"):
        tables.get("t", one, feature="c")
    for change in (lambda: tables.set("m", one, torch.ones(1, 2)), lambda: tables.delete("m", one)):
        with pytest.raises(ConfigError, match="table m: feature 'c' has 2 rows per id, so an id has no row of its own"):
            change()
    with pytest.raises(DataError, match=r"must be finite and of shape \(1, 2\), received \(1, 3\)"):
        tables.set("t", one, torch.ones(1, 3), feature="a")
    with pytest.raises(DataError, match="must be finite"):
        tables.set("t", one, torch.tensor([[1.0, float("nan")]]), feature="a")
    batch = KeyedJaggedTensor(["a", "b", "c"], torch.tensor([1, 1, 1]), lengths=torch.tensor([1, 1, 1]))
    EmbeddingBagCollection.over(tables)(batch).values().sum().backward()
    for call in (
        lambda: tables.delete("t", one, feature="a"),
        lambda: tables.set("t", one, torch.ones(1, 2), feature="a"),
    ):
        with pytest.raises(StateError, match="are waiting for their step"):
            call()


def test_what_was_deleted_is_nowhere_on_the_disk(tmp_path: Path) -> None:
    """Erasure of a person: tombstone, then a snapshot, then no byte of key or row is left in any file."""
    tables = Tables(
        [CollisionlessTable(name="t", dim=4, optimizer=Sgd(learning_rate=0.1))],
        [Feature(name="f", table="t", encoder=Identity())],
        seed=1,
    )
    person = 6825480319823757831
    row = torch.tensor([[0.123456, -7.654321, 3.1415926, 2.7182818]])
    state = StateFolder(tmp_path)
    with LeaseHolder(state) as writer:
        chain = VersionWriter(writer, "resume", tables, keep=1, longest=1)
        tables.set("t", torch.tensor([person]), row)
        learn(tables, [1, 2, 3])
        chain.cut({}, {})
        chain.wait()
        assert traces(tmp_path, person, row)
        tables.delete("t", torch.tensor([person]))
        chain.cut({}, {})  # a delta: its tombstone still names the key
        chain.wait()
        assert state.manifest("resume", 2).files["t.tombstones.0.arrow"].rows == 1
        learn(tables, [4])
        chain.cut({}, {})
        chain.wait()
        chain.close()
    assert state.sequences("resume") == [3]
    assert not traces(tmp_path, person, row)
    again = Tables(tables.configs, [Feature(name="f", table="t", encoder=Identity())], seed=1)
    load_version(state, state.chain("resume", 3), again)
    assert same(flat(again), flat(tables))


def traces(folder: Path, key: int, row: torch.Tensor) -> list[str]:
    wanted = [np.int64(key).tobytes(), row.numpy().tobytes(), row[:, :2].numpy().tobytes()]
    files = [file for file in folder.rglob("*") if file.is_file()]
    return [str(file) for file in files if any(bytes_ in file.read_bytes() for bytes_ in wanted)]

"""Rows that are served: those of the trained store bit for bit, for readers on any thread beside the one who writes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embtables.errors import ConfigError, DataError, StateError
from embtables.native import _core
from embtables.rows.content import TableContent
from embtables.rows.host.store import HostRowStore
from embtables.rows.protocol import Lookup
from embtables.rows.served.rows import ServedRows
from embtables.rows.stored_table import StoredTable
from embtables.schema import Adagrad, CollisionlessTable, DenseDecay, FixedTable, Normal
from embtables.state.format.projection import project
from tests.contracts.single import train_rows
from tests.rows.served_for_tests import run

DIM = 4
COMMON: dict[str, Any] = {"dim": DIM, "optimizer": Adagrad(learning_rate=0.5), "initializer": Normal(std=1.0)}
GROWING = StoredTable(CollisionlessTable(name="item", cold_row="trained", ttl_seconds=100, **COMMON), 7)
FIXED = StoredTable(FixedTable(name="user", num_rows=50, **COMMON), 3)
ABSENT = -(2**62)
SEED = 7
NO_MIX = int(np.uint64((-SEED * 0x9E3779B97F4A7C15) % 2**64).astype(np.int64))  # the key whose mix is 0
KEYS = st.one_of(st.integers(0, 30), st.sampled_from([NO_MIX, -1, 2**63 - 1, -(2**63)]))


def content(
    rows: dict[int, float], *, seen: int = 0, tombstones: list[int] | None = None, now: int = 0
) -> TableContent:
    """Rows by key, each of one value throughout."""
    weights = np.repeat(np.array(list(rows.values()), np.float32)[:, None], DIM, axis=1).reshape(-1, DIM)
    return TableContent(
        np.array(list(rows), np.int64),
        {"weight": weights},
        np.full(len(rows), seen, np.uint32),
        np.empty(0, np.uint32),
        tombstones=np.array(tombstones or [], np.int64),
        now=now,
    )


def values(served: ServedRows, keys: list[int], table: int = 0) -> list[float]:
    rows = served.read(table, "weight", torch.tensor(keys))
    assert (rows == rows[:, :1]).all()
    return [float(value) for value in rows[:, 0]]


def step(store: HostRowStore, rng: np.random.Generator, now: int) -> None:
    for feature, limit in ((0, 200), (1, 50)):
        keys = torch.from_numpy(rng.integers(0, limit, 40))
        _, kept = train_rows(store, feature, keys)
        kept.add_gradients([torch.from_numpy(rng.standard_normal((40, DIM)).astype(np.float32))])
    store.update(1.0)
    store.advance(0, now)


def with_decay(table: StoredTable) -> StoredTable:
    """All rows decay to a fiftieth in a step: every sixth step makes the scale 1 again."""
    optimizer = Adagrad(learning_rate=0.5, weight_decay=DenseDecay(rate=1.96))
    return replace(table, config=table.config.model_copy(update={"optimizer": optimizer}))


@pytest.mark.parametrize("decays", [False, True])
@pytest.mark.parametrize("isa", _core.available_isas())
def test_what_is_taken_over_reads_as_the_trained_rows_do(
    isa: str, decays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBTABLES_ISA", isa)
    tables, rng = [with_decay(table) if decays else table for table in (GROWING, FIXED)], np.random.default_rng(0)
    store, served = HostRowStore(tables, [0, 1, 0]), ServedRows(tables, [0, 1, 0])
    after: int | None = None
    scales = []
    for now in range(10, 360, 25):
        step(store, rng, now)
        cut = store.draw_cut()
        for table in range(2):
            changed = project(store.capture(table, after).content(), "weights")
            served.take_over(table, changed, more=False)
        after = cut
        scales.append(changed.scale)
        keys, users = torch.arange(-5, 205), torch.arange(50)
        assert torch.equal(served.gather([0], [keys])[0], store.gather([0], [keys])[0])
        assert torch.equal(served.read(0, "weight", keys), store.read(0, "weight", keys))
        assert torch.equal(served.has_rows(0, keys), store.has_rows(0, keys))
        assert torch.equal(served.read(1, "weight", users), store.read(1, "weight", users))
        lengths = rng.integers(0, 5, 3 * 20)
        offsets = torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)]))
        ids = torch.from_numpy(rng.integers(0, 50, int(offsets[-1])))
        for weights in (None, torch.from_numpy(rng.random(len(ids), dtype=np.float32))):
            lookup = Lookup((0, 1, 2), ids, offsets, weights, 20)
            assert torch.equal(served.pooled(lookup), store.pooled(lookup))
    assert served.num_rows(0) >= store.num_alive(0)[0] > 50
    assert sum(np.diff(scales) > 0) == (2 if decays else 0)


def assert_pooled_reads_as_gather(served: ServedRows, keys: list[int]) -> None:
    """Also between two pieces of a version, when rows of one table have two scales."""
    lookup = Lookup((0,), torch.tensor(keys), torch.arange(len(keys) + 1), None, len(keys))
    rows = served.read(0, "weight", torch.tensor(keys))
    assert torch.equal(served.pooled(lookup), rows)
    weights = torch.arange(len(keys)) + 0.5
    assert torch.equal(served.pooled(replace(lookup, weights=weights)), rows * weights[:, None])


@given(
    changes=st.lists(
        st.tuples(
            st.sampled_from([1.0, 0.7, 0.5, 0.3]),
            st.dictionaries(KEYS, st.integers(1, 9), max_size=12),
            st.lists(KEYS, max_size=6),
            st.integers(0, 60),
            st.integers(1, 3),
        ),
        max_size=8,
    )
)
@settings(max_examples=200)
def test_it_holds_what_a_dictionary_would(
    changes: list[tuple[float, dict[int, int], list[int], int, int]],
) -> None:
    """Versions with scales, each in so many pieces. A scale that rises comes with all rows that there are."""
    served, now, former = ServedRows([GROWING], [0]), 0, 1.0
    rows: dict[int, tuple[int, int]] = {}
    for number, (scale, upserts, deleted, passed, pieces) in enumerate(changes):
        now += passed
        rows = {k: r for k, r in rows.items() if k not in deleted and scale <= former}
        rows |= {key: (value, now) for key, value in upserts.items()}
        for piece in range(pieces):
            part = {key: float(value) for key, value in upserts.items() if key % pieces == piece}
            gone = [key for key in deleted if key % pieces == piece]
            change = content(part, seen=now, tombstones=gone, now=now)
            change.cold = {"weight": np.full((1, DIM), -1.0 - number, np.float32)}
            change.scale = scale
            served.take_over(0, change, more=piece < pieces - 1)
            assert_pooled_reads_as_gather(served, list(part) + gone + [0, 1, 2])
        keys, former = [*range(31), NO_MIX, -1, 2**63 - 1, -(2**63), ABSENT], scale
        wanted = [float(rows[k][0]) if k in rows and now - rows[k][1] <= 100 else -1.0 - number for k in keys]
        assert values(served, keys) == [float(np.float32(scale) * np.float32(value)) for value in wanted]
        assert served.has_rows(0, torch.tensor(keys)).tolist() == [value > 0 for value in wanted]
        assert served.num_rows(0) == len(rows)
        offsets, bags = torch.tensor([0, 3, len(keys)]), [keys[:3], keys[3:]]
        sums = [[sum(values(served, bag))] * DIM for bag in bags]
        pooled = served.pooled(Lookup((0,), torch.tensor(keys), offsets, None, 2))
        assert torch.allclose(pooled, torch.tensor(sums), atol=1e-4)


def test_a_key_that_has_no_row_reads_zeros() -> None:
    served = ServedRows([GROWING], [0, 0])
    served.take_over(0, content({1: 5.0}), more=False)
    offsets = torch.tensor([0, 2, 3])
    assert served.pooled(Lookup((0, 1), torch.tensor([1, 2, 3]), offsets, None, 1)).tolist() == [[5.0] * 4 + [0.0] * 4]
    (rows,) = served.gather([1], [torch.tensor([1, 9, 8])])
    assert rows.tolist() == [[5.0] * 4, [0.0] * 4, [0.0] * 4]


def test_the_same_version_twice_changes_nothing() -> None:
    served, version = ServedRows([GROWING], [0]), content({1: 1.0, 2: 2.0}, tombstones=[3], now=5)
    served.take_over(0, content({3: 3.0}), more=False)
    for _ in range(2):
        served.take_over(0, version, more=False)
        assert values(served, [1, 2, 3]) == [1.0, 2.0, 0.0]
        assert served.num_rows(0) == 2


def test_a_key_outside_a_fixed_table_is_refused() -> None:
    served = ServedRows([FIXED], [0])
    with pytest.raises(DataError, match="key 50 is outside a table of 50 rows"):
        served.gather([0], [torch.tensor([50])])
    with pytest.raises(DataError, match="key -1 is outside a table of 50 rows"):
        served.take_over(0, content({-1: 1.0}), more=False)


def test_pieces_of_two_versions_are_refused_and_so_is_a_scale_that_rises_without_all_rows() -> None:
    served, half = ServedRows([GROWING, FIXED], [0, 1]), content({1: 1.0})
    half.scale = 0.5
    served.take_over(0, half, more=True)
    with pytest.raises(StateError, match="table item: pieces of one version must have one scale"):
        served.take_over(0, content({2: 2.0}), more=False)
    served.take_over(0, half, more=False)
    assert values(served, [1, 2]) == [0.5, 0.0]
    all_users = content(dict.fromkeys(range(50), 1.0))
    all_users.scale = 0.5
    served.take_over(1, all_users, more=False)
    with pytest.raises(StateError, match="table user: its scale rises, and it has no row of key 3"):
        served.take_over(1, content({user: 1.0 for user in range(50) if user != 3}), more=False)
    assert values(served, [2, 3], 1) == [1.0, 0.5]
    served.take_over(1, content(dict.fromkeys(range(50), 2.0)), more=False)
    assert values(served, [2, 3], 1) == [2.0, 2.0]


def test_a_part_and_a_column_that_it_does_not_have_are_refused() -> None:
    with pytest.raises(ConfigError, match="a part of a table cannot be served"):
        ServedRows([StoredTable(GROWING.config, 1, (0, 512))], [0])
    with pytest.raises(ConfigError, match="rows that are served have no 'sum'"):
        ServedRows([FIXED], [0]).read(0, "sum", torch.tensor([0]))


def test_readers_see_each_row_as_some_version_has_it() -> None:
    _, _, wrong = run(lambda versions, lookups: versions >= 4000 and lookups >= 8000)
    assert not wrong, wrong

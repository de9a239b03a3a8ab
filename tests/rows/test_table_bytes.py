"""Bytes that the native core says a table will take, against those of a store that holds it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from embtables import Feature, Tables
from embtables.ids.mix import seeded_mix
from embtables.keyspace import NUM_BUCKETS, buckets_of, table_seed
from embtables.rows.host.state import bytes_of
from embtables.rows.stored_table import StoredTable
from embtables.schema import Adagrad, Adam, CollisionlessTable, FixedTable, MinCount, RowwiseAdagrad, Sgd, Table
from embtables.shard.world import World
from tests.shard.threads_for_tests import in_threads

OPTIMIZERS: list[Any] = [kind(learning_rate=0.1) for kind in (Sgd, RowwiseAdagrad, Adagrad, Adam)]
SEED = table_seed(0, "t")
SHARDS = 32  # of a map of keys


def _tables(config: Table, world: World | None = None) -> Tables:
    options = {} if world is None else {"world": world}
    return Tables([config], [Feature(name="t", table="t")], seed=0, **options)


def _even_keys(each: int) -> torch.Tensor:
    """As many keys of each shard of the map."""
    keys = np.arange(80 * each + 2_000)
    shards = (seeded_mix(keys, SEED) >> np.uint64(32)) % np.uint64(SHARDS)
    return torch.from_numpy(np.concatenate([keys[shards == shard][:each] for shard in range(SHARDS)]))


def _assert_as_held(predicted: dict[str, int], held: dict[str, int]) -> None:
    rows = sum(size for name, size in held.items() if name not in ("keys", "counts"))
    assert (predicted["rows"], predicted["keys"], predicted["counts"]) == (
        rows,
        held.get("keys", 0),
        held.get("counts", 0),
    )


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: o.kind)
@pytest.mark.parametrize("dim", [1, 2, 3, 8, 9, 16, 20, 64, 130])
@pytest.mark.parametrize("kind", ["collisionless", "fixed"])
def test_a_table_takes_the_bytes_that_the_core_predicted(optimizer: Any, dim: int, kind: str) -> None:
    options: dict[str, Any] = {"name": "t", "dim": dim, "optimizer": optimizer}
    config = CollisionlessTable(**options) if kind == "collisionless" else FixedTable(num_rows=3_200, **options)
    tables = _tables(config)
    tables.rows.make(0, _even_keys(100))
    _assert_as_held(bytes_of(StoredTable(config, SEED), 3_200, 0), tables.rows.num_bytes(0))


@pytest.mark.parametrize("each", [0, 1, 5, 6, 7, 8, 40, 1_000, 4_000])
def test_a_map_of_keys_grows_as_the_core_predicted(each: int) -> None:
    config = CollisionlessTable(name="t", dim=1, optimizer=OPTIMIZERS[0])
    tables, keys = _tables(config), _even_keys(each)
    for some in keys.split(997):
        tables.rows.make(0, some)
    _assert_as_held(bytes_of(StoredTable(config, SEED), len(keys), 0), tables.rows.num_bytes(0))


@pytest.mark.parametrize("counting", ["exact", "sketch"])
@pytest.mark.parametrize("count", [2, 15, 16, 255, 256])
def test_waiting_keys_take_the_bytes_that_the_core_predicted(counting: Any, count: int) -> None:
    admission = MinCount(count=count, max_waiting=50_000, counting=counting)
    config = CollisionlessTable(name="t", dim=4, optimizer=OPTIMIZERS[0], admission=admission)
    tables, keys = _tables(config), _even_keys(200)
    tables.rows.train_rows([0], [keys])
    tables.rows.discard()
    _assert_as_held(bytes_of(StoredTable(config, SEED), 0, len(keys)), tables.rows.num_bytes(0))


@pytest.mark.parametrize("kind", ["collisionless", "fixed"])
@pytest.mark.parametrize("ranks", [2, 3])
def test_a_part_takes_the_bytes_that_the_core_predicted(kind: str, ranks: int) -> None:
    options: dict[str, Any] = {"name": "t", "dim": 12, "optimizer": OPTIMIZERS[2]}
    config = CollisionlessTable(**options) if kind == "collisionless" else FixedTable(num_rows=3_200, **options)
    keys = _even_keys(100) if kind == "collisionless" else torch.arange(3_200)
    buckets = buckets_of(keys.numpy(), SEED)

    def held(world: World) -> tuple[int, dict[str, int]]:
        first, end = world.buckets()
        own = keys[torch.from_numpy((buckets >= first) & (buckets < end))]
        tables = _tables(config, world)
        if kind == "collisionless":
            tables.rows.make(0, own)
        return len(own), tables.rows.num_bytes(0)

    for rank, (rows, found) in enumerate(in_threads(ranks, held)):
        part = replace(
            StoredTable(config, SEED), buckets=(rank * NUM_BUCKETS // ranks, (rank + 1) * NUM_BUCKETS // ranks)
        )
        predicted = bytes_of(part, rows, 0)
        if kind == "collisionless":  # a rank's keys are not spread quite evenly over the shards
            assert predicted["keys"] == pytest.approx(found.pop("keys"), rel=0.2)
            predicted["keys"] = 0
        _assert_as_held(predicted, found)

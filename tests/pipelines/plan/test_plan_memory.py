"""Bytes that a plan says, against those of tables that hold as many rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from embtables import Feature, Tables
from embtables.pipelines.plan.scenario import table_memory
from embtables.schema import Adagrad, Adam, MinCount, RowwiseAdagrad, Sgd
from embtables.shard.world import World
from tests.pipelines.plan.plan_for_tests import table
from tests.shard.threads_for_tests import in_threads

OPTIMIZERS: list[Any] = [Sgd(learning_rate=0.1), RowwiseAdagrad(learning_rate=0.1), Adagrad(learning_rate=0.1)]
OPTIMIZERS += [Adam(learning_rate=0.1)]


def _bytes(tables: Tables) -> int:
    return sum(tables.stats()["t"].bytes_by_column.values())


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: o.kind)
@pytest.mark.parametrize("dim", [1, 3, 8, 16, 20, 64])
@pytest.mark.parametrize("rows", [100, 30_000, 200_000])
def test_a_filled_table_takes_what_was_predicted(optimizer: Any, dim: int, rows: int) -> None:
    config = table("t", dim, optimizer=optimizer)
    tables = Tables([config], [Feature(name="t", table="t")], seed=0)
    for start in range(0, rows, 5_000):
        tables.rows.make(0, torch.from_numpy(np.random.default_rng(start).integers(-(2**62), 2**62, 5_000)))
    made = tables.stats()["t"].rows
    found = table_memory(config, float(made), 0.0, 1)
    assert found.rows + found.keys == pytest.approx(_bytes(tables), rel=0.10)
    assert found.num_rows == made + 1  # the cold row


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("fixed", [True, False])
def test_the_parts_of_ranks_take_what_was_predicted(ranks: int, fixed: bool) -> None:
    config = table("t", 16, rows=100_000 if fixed else None)

    def held(world: World) -> dict[str, int]:
        tables = Tables([config], [Feature(name="t", table="t")], seed=0, world=world)
        if not fixed:
            tables.rows.make(0, torch.arange(world.rank, 100_000, world.size))
        return tables.rows.num_bytes(0)

    found = in_threads(ranks, held)
    predicted = table_memory(config, 100_000.0, 0.0, ranks)
    assert predicted.rows + predicted.keys == pytest.approx(max(sum(each.values()) for each in found), rel=0.10)
    assert predicted.keys == pytest.approx(max(each.get("keys", 0) for each in found), rel=0.10)


@pytest.mark.parametrize("counting", ["exact", "sketch"])
@pytest.mark.parametrize("count", [2, 20, 300])
def test_waiting_keys_take_what_was_predicted(counting: Any, count: int) -> None:
    admission = MinCount(count=count, max_waiting=50_000, counting=counting)
    config = table("t", 4, admission=admission)
    tables = Tables([config], [Feature(name="t", table="t")], seed=0)
    keys = torch.arange(40_000)
    tables.rows.train_rows([0], [keys])
    tables.rows.discard()
    stats = tables.stats()["t"]
    waiting = 40_000.0 if counting == "exact" else 0.0
    assert stats.counts["waiting"] == waiting
    found = table_memory(config, float(stats.rows), waiting, 1)
    assert found.keys == pytest.approx(sum(stats.bytes_by_column.get(n, 0) for n in ("keys", "counts")), rel=0.10)

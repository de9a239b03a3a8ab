"""What tables report of themselves is the same whatever the number of ranks that hold them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embtables import CollisionlessTable, Feature, FixedTable, Tables
from embtables.schema import Identity, MinCount, Sgd
from embtables.shard.world import SingleRank, World
from embtables.tables.table_stats import quantiles
from tests.shard.threads_for_tests import in_threads

TABLES = (
    CollisionlessTable(
        name="grows", dim=2, optimizer=Sgd(learning_rate=0.1), admission=MinCount(count=2), cold_row="trained"
    ),
    FixedTable(name="copied", dim=2, num_rows=5, optimizer=Sgd(learning_rate=0.1)),
    FixedTable(name="shared", dim=2, num_rows=60, optimizer=Sgd(learning_rate=0.1)),
)


def counted(world: World | None) -> tuple[dict[str, Any], int]:
    """Steps in which some gradients are not finite. What is counted, and in how many steps the cold row stayed."""
    size, rank = (1, 0) if world is None else (world.size, world.rank)
    features = [Feature(name=t.name, table=t.name, encoder=Identity(), pooling="sum") for t in TABLES]
    made = Tables(TABLES, features, seed=1, world=world, replicated=["copied"])
    stayed = 0
    for step in range(9):
        ids = np.random.default_rng(step).integers(0, 60, 30)
        own = torch.from_numpy(ids[30 * rank // size : 30 * (rank + 1) // size])
        keys = [own, own % 5, own]
        cold = made.rows.read(0, "weight", torch.tensor([999]))
        rows, kept = made.rows.train_rows([0, 1, 2], keys)
        gradients = [torch.ones_like(each) for each in rows]
        for gradient, of in zip(gradients, keys, strict=True):
            gradient[of % 7 == step % 7] = float("inf") if step % 2 else float("nan")
        kept.add_gradients(gradients)
        if step % 3:
            made.gradient_norm()
        made.step(gradient_scale=0.5)
        stayed += torch.equal(made.rows.read(0, "weight", torch.tensor([999])), cold)
    return {name: stats.counts for name, stats in made.stats().items()}, stayed


def test_refused_gradients_are_those_of_one_process() -> None:
    whole, refused_cold = counted(None)
    assert 2 <= refused_cold < whole["grows"]["refused_gradients"]
    assert all(whole[name]["refused_gradients"] for name in ("copied", "shared"))
    for ranks in (2, 3):
        assert in_threads(ranks, counted) == [(whole, refused_cold)] * ranks


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.integers(0, 3) | st.integers(0, 2**32 - 1), max_size=12), min_size=1, max_size=4))
def test_quantiles_of_what_ranks_have_are_exact(parts: list[list[int]]) -> None:
    whole = sorted(value for part in parts for value in part)
    places = [int(share * (len(whole) - 1)) for share in (0.0, 0.5, 0.9, 0.99, 1.0)] if whole else []
    expected = [[whole[place] for place in places], [0] * 5]

    def own(rank: int) -> list[Any]:
        return [np.array(parts[rank], np.uint32), np.zeros(2, np.uint32)]

    for found in in_threads(len(parts), lambda world: quantiles(own(world.rank), world)):
        assert found == expected
    assert quantiles([], SingleRank()) == []

"""Counts of tables belong to a version: whoever resumes it, at any number of ranks, goes on from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torchrec import KeyedJaggedTensor

from embtables import CollisionlessTable, EmbeddingBagCollection, Feature, FixedTable, Tables
from embtables.schema import Adam, Identity, MinCount, Sgd
from embtables.shard.world import World
from embtables.state.folder.version_folder import StateFolder
from embtables.state.read.load import load
from embtables.state.write.version_writer import VersionWriter
from tests.shard.threads_for_tests import in_threads
from tests.shard.versions.chains_for_tests import holding

CONFIGS = [
    FixedTable(name="fixed", dim=4, num_rows=30, optimizer=Sgd(learning_rate=0.1)),
    CollisionlessTable(
        name="grows", dim=4, optimizer=Adam(learning_rate=0.1), admission=MinCount(count=2), ttl_seconds=40
    ),
    CollisionlessTable(name="limited", dim=4, optimizer=Sgd(learning_rate=0.1), max_rows=20),
]
FEATURES = [Feature(name=f"f{n}", table=c.name, encoder=Identity()) for n, c in enumerate(CONFIGS)]


def train(made: Tables, steps: range) -> None:
    """Steps of 12 rows, of which each rank has its part; some are late, and some gradients are not finite."""
    view, (rank, size) = EmbeddingBagCollection.over(made), (made.world.rank, made.world.size)
    for step in steps:
        rng = np.random.default_rng(step)
        ids, times = rng.integers(0, [[30], [60], [60]], (3, 12)), np.full(12, 1000 + 10 * step)
        if step in (4, 8):
            times -= 500
        mine = slice(12 * rank // size, 12 * (rank + 1) // size)
        made.advance(torch.from_numpy(times[mine]) * 1_000_000)
        own = torch.from_numpy(ids[:, mine].reshape(-1).copy())
        out = view(KeyedJaggedTensor(["f0", "f1", "f2"], own, lengths=torch.ones(len(own)).int())).values()
        gradient = torch.ones_like(out)
        if step in (3, 7) and rank == size - 1:
            gradient[-1] = torch.nan
        out.backward(gradient)
        made.step()


def counts(world: World, folder: Path, steps: range, resumes: bool, longest: int) -> dict[str, dict[str, int]]:
    """What all ranks report together after these steps, the last of which is saved."""
    made = Tables(CONFIGS, FEATURES, seed=3, world=world)
    with holding(world, folder) as held:
        chain = VersionWriter(held, "resume", made, world=world, longest=longest)
        if resumes:
            state = StateFolder(folder)
            versions = state.chain("resume", state.sequences("resume")[-1])
            load(state, versions, made, world.buckets())
            chain.go_on_from(versions)
        for step in steps:
            train(made, range(step, step + 1))
            if step % 2:
                chain.cut({}, {})
        found = {name: {"rows": stats.rows, **stats.counts} for name, stats in made.stats().items()}
        chain.cut({}, {})
        chain.wait()
        chain.close()
    return {name: _whatever_the_sweep(table) for name, table in found.items()}


def _whatever_the_sweep(table: dict[str, int]) -> dict[str, int]:
    """How far the sweep has come decides when what is past its ttl is counted as gone, and nothing else."""
    for held, expired in (("rows", "expired"), ("waiting", "waiting_expired")):
        if expired in table:
            table[expired] += table.pop(held)
    return table


@pytest.mark.parametrize("longest", [0, 16])
@pytest.mark.parametrize(("before", "after"), [(1, 1), (2, 2), (2, 1), (1, 3)])
def test_a_resumed_table_counts_on(tmp_path: Path, before: int, after: int, longest: int) -> None:
    (whole, *_) = in_threads(1, lambda world: counts(world, tmp_path / "whole", range(10), False, longest))
    (first, *_) = in_threads(before, lambda world: counts(world, tmp_path / "halves", range(5), False, longest))
    (found, *_) = in_threads(after, lambda world: counts(world, tmp_path / "halves", range(5, 10), True, longest))
    assert found == whole
    for table, name in (("grows", "admitted"), ("grows", "late_batches"), ("limited", "evicted")):
        assert 0 < first[table][name] < found[table][name]
    assert found["limited"]["refused_gradients"] > 0

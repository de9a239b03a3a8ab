"""Small fixed tables that every rank has whole: which ones, and that nothing else changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embtables import CollisionlessTable, Feature, FixedTable, Tables
from embtables.errors import DataError
from embtables.schema import Hash, MultiHash, Sgd
from embtables.shard.placement import replicated
from embtables.shard.world import SingleRank, World
from embtables.state.folder.version_folder import StateFolder
from embtables.state.read.load import load
from embtables.state.write.version_writer import VersionWriter
from tests.shard.threads_for_tests import in_threads
from tests.shard.training_for_tests import Run, assert_same_held, held, learn, tables
from tests.shard.versions.chains_for_tests import holding

RUN = Run("fixed", "adam", 9)


def fixed(rows: int) -> FixedTable:
    return FixedTable(name="t", dim=2, num_rows=rows, optimizer=Sgd(learning_rate=0.1))


def chosen(table: Any, features: list[Feature], batch_rows: int, ranks: int) -> bool:
    return replicated([table], features, batch_rows=batch_rows, world_size=ranks) == {"t"}


@settings(deadline=None)
@given(rows=st.integers(1, 10**6), batch=st.integers(1, 10**6), ranks=st.integers(2, 1024))
def test_small_tables_are_replicated_and_a_smaller_one_sooner(rows: int, batch: int, ranks: int) -> None:
    features = [Feature(name="f", table="t", encoder=Hash(seed=1))]
    if chosen(fixed(rows), features, batch, ranks):
        assert rows <= ranks or 32 * rows <= batch // ranks
        assert rows == 1 or chosen(fixed(rows - 1), features, batch, ranks)
        assert chosen(fixed(rows), [*features, Feature(name="g", table="t", encoder=Hash(seed=2))], batch, ranks)
    else:
        assert rows > ranks


def test_what_is_never_replicated() -> None:
    features = [Feature(name="f", table="t", encoder=Hash(seed=1))]
    assert not chosen(fixed(1), features, 10**6, 1), "a single rank has all anyway"
    grows = CollisionlessTable(name="t", dim=2, optimizer=Sgd(learning_rate=0.1), max_rows=1)
    assert not chosen(grows, [Feature(name="f", table="t")], 10**6, 4)
    assert chosen(fixed(63), [Feature(name="f", table="t", encoder=MultiHash(num_hashes=2))], 2016, 2)
    assert not chosen(fixed(64), [Feature(name="f", table="t", encoder=MultiHash(num_hashes=2))], 2016, 2)


def gone_on(world: World, folder: Path, policy: str, steps: range) -> dict[str, Any]:
    """Goes on from the newest version under some placement, with two more versions; what this rank holds."""
    made, state = tables(policy, RUN.optimizer, world), StateFolder(folder)
    with holding(world, folder) as holder:
        chain = VersionWriter(holder, "resume", made, world=world)
        numbers = state.sequences("resume")
        if numbers:
            versions = state.chain("resume", numbers[-1])
            load(state, versions, made, world.buckets())
            chain.go_on_from(versions)
        for part in (steps[: len(steps) // 2], steps[len(steps) // 2 :]):
            learn(made, RUN, part)
            chain.cut({}, {})
        chain.wait()
        chain.close()
        assert chain.failures == []
    return held(made)


def test_versions_do_not_say_which_tables_were_replicated(tmp_path: Path) -> None:
    whole = tables("fixed", RUN.optimizer, None)
    for ranks, policy, steps in (
        (2, "some_replicated", range(4)),
        (3, "replicated", range(4, 8)),
        (2, "fixed", range(8, 12)),
        (4, "some_replicated", range(12, 16)),
    ):
        found = in_threads(ranks, lambda world, p=policy, s=steps: gone_on(world, tmp_path, p, s))  # type: ignore[misc]
        learn(whole, RUN, steps)
        assert_same_held(found, held(whole), 1e-4)
    read, state = tables("fixed", RUN.optimizer, SingleRank()), StateFolder(tmp_path)
    load(state, state.chain("resume", state.sequences("resume")[-1]), read)
    assert_same_held([held(read)], held(whole), 1e-4)


def test_rows_are_read_written_and_deleted_from_any_rank() -> None:
    def work(world: World) -> tuple[Any, ...]:
        made = tables("replicated", "adam", world)
        learn(made, RUN, range(2))
        ids = torch.arange(5) + world.rank
        fresh = tables("replicated", "adam", world).get("few", torch.arange(7), feature="b")
        made.set("few", ids, torch.full((5, 3), 1.0 + world.rank), feature="b")
        after_set = made.get("few", torch.arange(9), feature="b")
        made.delete("few", torch.tensor([3]) if world.rank else torch.empty(0, dtype=torch.int64), feature="b")
        return after_set, made.get("few", torch.arange(9), feature="b"), fresh, made.changes

    found = in_threads(3, work)
    one = tables("fixed", "adam", None)
    learn(one, RUN, range(2))
    for rank in range(3):
        one.set("few", torch.arange(5) + rank, torch.full((5, 3), 1.0 + rank), feature="b")
    expected = one.get("few", torch.arange(9), feature="b")
    one.delete("few", torch.tensor([3]), feature="b")
    for after_set, after_delete, *_ in found:
        assert after_set.tolist() == expected.tolist()
        assert after_delete.tolist() == one.get("few", torch.arange(9), feature="b").tolist()


def test_a_gradient_that_is_not_finite_is_refused_by_every_copy_and_counted_once() -> None:
    def work(world: World) -> tuple[int, bytes, bytes]:
        table = FixedTable(name="t", dim=2, num_rows=3, optimizer=Sgd(learning_rate=0.1), non_finite_gradients="skip")
        features = [Feature(name="f", table="t", encoder=Hash(seed=1), pooling="sum")]
        made = Tables([table], features, seed=1, world=world, replicated=["t"])
        before = made.weight("t")
        (rows,), kept = made.rows.train_rows([0], [torch.arange(2)])
        gradient = torch.ones_like(rows)
        gradient[0] = float("nan") if world.rank == 1 else 1.0
        kept.add_gradients([gradient])
        assert not np.isfinite(made.gradient_norm())
        made.step()
        after = made.weight("t")
        assert after[0].tolist() == before[0].tolist()
        np.testing.assert_allclose(after[1], before[1] - 0.1 * world.size)
        return made.stats()["t"].counts["refused_gradients"], after.numpy().tobytes(), b""

    assert len(set(in_threads(3, work))) == 1
    assert in_threads(3, work)[0][0] == 1


def test_a_refused_gradient_ends_the_step_at_every_rank() -> None:
    def work(world: World) -> None:
        table = FixedTable(name="t", dim=2, num_rows=3, optimizer=Sgd(learning_rate=0.1), non_finite_gradients="raise")
        made = Tables(
            [table], [Feature(name="f", table="t", encoder=Hash(seed=1))], seed=1, world=world, replicated=["t"]
        )
        (rows,), kept = made.rows.train_rows([0], [torch.arange(2)])
        kept.add_gradients([torch.full_like(rows, float("inf") if world.rank else 1.0)])
        with pytest.raises(DataError, match="table t: gradients of 2 rows were not finite"):
            made.step()

    in_threads(2, work)

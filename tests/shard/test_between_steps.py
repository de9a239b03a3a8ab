"""What may happen between a lookup and its step does to several ranks what it does to one."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torchrec import KeyedJaggedTensor

from embtables import CollisionlessTable, EmbeddingBagCollection, Feature, FixedTable, Tables
from embtables.errors import DataError, StateError
from embtables.schema import Adagrad, Identity, MinCount
from embtables.shard.world import World
from embtables.warm_start import from_parquet
from tests.shard.threads_for_tests import in_threads

IDS = torch.arange(20)


def tables(world: World | None, **options: Any) -> tuple[Tables, EmbeddingBagCollection]:
    table = CollisionlessTable(name="t", dim=2, optimizer=Adagrad(learning_rate=0.1), **options)
    features = [Feature(name="f", table="t", encoder=Identity(), pooling="sum", weights_column="w")]
    made = Tables([table], features, seed=0, world=world)
    return made, EmbeddingBagCollection.over(made)


def look_up(view: EmbeddingBagCollection, ids: torch.Tensor = IDS) -> torch.Tensor:
    ones = torch.ones(len(ids))
    return view(KeyedJaggedTensor(["f"], ids, weights=ones, lengths=ones.int())).values()


def step(made: Tables, view: EmbeddingBagCollection) -> None:
    look_up(view).sum().backward()
    made.step()


def at(ranks: int, work: Callable[[World | None], Any]) -> list[Any]:
    return [work(None)] if ranks == 1 else in_threads(ranks, work)


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("then", ["advance", "delete", "step", "discard", "nothing"])
def test_a_lookup_that_no_backward_followed_disturbs_nothing(ranks: int, then: str) -> None:
    def work(world: World | None) -> Any:
        made, view = tables(world, ttl_seconds=100)
        made.advance(torch.full((3,), 1_000_000_000))
        step(made, view)
        made.advance(torch.full((3,), 2_000_000_000))
        look_up(view)
        if then == "advance":
            made.advance(torch.full((3,), 3_000_000_000))
        elif then == "delete":
            made.delete("t", torch.tensor([3]))
        elif then == "step":
            made.step()
            made.advance(torch.full((3,), 3_000_000_000))
        elif then == "discard":
            made.discard()
        step(made, view)
        return made.get("t", IDS).tolist()

    found = at(ranks, work)
    assert all(each == found[0] for each in found)
    assert np.isfinite(found[0]).all()


def test_a_backward_after_its_step_is_refused_at_every_rank() -> None:
    def work(world: World | None) -> None:
        made, view = tables(world)
        late = look_up(view).sum()
        step(made, view)
        with pytest.raises(StateError, match="64 other lookups lie between this lookup and its backward"):
            late.backward()
        late = look_up(view).sum()
        for _ in range(64):
            look_up(view)
        with pytest.raises(StateError, match="64 other lookups lie between this lookup and its backward"):
            late.backward()

    at(2, work)


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_norm_that_is_not_finite_is_not_taken_for_none(ranks: int) -> None:
    def work(world: World | None) -> float:
        made, view = tables(world, admission=MinCount(count=9), cold_row="trained")
        (look_up(view) * float("inf")).sum().backward()
        return made.gradient_norm()

    assert at(ranks, work) == [math.inf] * ranks


@pytest.mark.parametrize("ranks", [1, 2])
def test_more_vectors_than_fit_are_refused_whoever_holds_them(ranks: int, tmp_path: Path) -> None:
    path = tmp_path / "vectors.parquet"
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.ones(200, np.float32)), 2)
    pq.write_table(pa.table({"id": np.arange(100), "vector": vectors}), path)

    def work(world: World | None) -> None:
        made, _ = tables(world, max_rows=60)
        with pytest.raises(DataError, match="100 rows after the warm start"):
            from_parquet(made, "t", str(path), id_column="id", vector_column="vector")

    at(ranks, work)


@pytest.mark.parametrize("replicated", [False, True])
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_the_last_vector_of_an_id_counts_whichever_rank_brings_it(ranks: int, replicated: bool, tmp_path: Path) -> None:
    path = tmp_path / "vectors.parquet"
    values = np.arange(400, dtype=np.float32)
    ids = np.random.default_rng(0).integers(0, 90, 200)
    pq.write_table(
        pa.table({"id": ids, "vector": pa.FixedSizeListArray.from_arrays(pa.array(values), 2)}), path, row_group_size=70
    )

    def work(world: World | None) -> Any:
        table = FixedTable(name="t", dim=2, num_rows=90, optimizer=Adagrad(learning_rate=0.1))
        features = [Feature(name="f", table="t", encoder=Identity())]
        made = Tables([table], features, seed=0, world=world, replicated=["t"] if replicated else [])
        warmed = from_parquet(made, "t", str(path), id_column="id", vector_column="vector")
        return warmed, made.get("t", torch.arange(90)).tolist()

    found = at(ranks, work)
    last = dict(zip(ids.tolist(), values.reshape(-1, 2).tolist(), strict=True))
    for warmed, rows in found:
        assert (warmed.rows, warmed.duplicates) == (len(last), 200 - len(last))
        assert {key: rows[key] for key in last} == last


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_changes_are_listed_without_a_word_between_ranks(ranks: int) -> None:
    def work(world: World | None) -> tuple[list[int], list[int]]:
        made, view = tables(world)
        step(made, view)
        cut = made.draw_cut()
        look_up(view, IDS[:7]).sum().backward()
        made.step()
        made.delete("t", torch.tensor([15]))
        if world is not None and world.rank:
            return [], []
        changes = made.changes("t", cut)
        return changes.keys.tolist(), changes.tombstones.tolist()

    keys, tombstones = at(ranks, work)[0]
    if ranks == 1:
        assert (keys, tombstones) == (list(range(7)), [15])
    else:
        assert set(keys) <= set(range(7))
        assert set(tombstones) <= {15}


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_a_backward_of_frozen_rows_asks_nothing_of_other_ranks(ranks: int) -> None:
    """A rank whose outputs nothing used has no backward."""

    def work(world: World | None) -> Any:
        made, view = tables(world, trainable=False)
        made.set("t", IDS, torch.arange(40.0).view(20, 2))
        weights = torch.ones(20, requires_grad=True)
        out = view(KeyedJaggedTensor(["f"], IDS, weights=weights, lengths=torch.ones(20, dtype=torch.int32))).values()
        if world is None or world.rank == world.size - 1:
            out.sum().backward()
        made.step()
        return None if weights.grad is None else weights.grad.tolist()

    assert at(ranks, work)[-1] == [4.0 * n + 1.0 for n in range(20)]


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_a_state_dict_of_one_process_is_loaded_by_any_number(ranks: int) -> None:
    one, view = tables(None)
    step(one, view)
    state = view.state_dict()

    def work(world: World | None) -> Any:
        made, ours = tables(world)
        made.set("t", torch.tensor([5, 100, 101]), torch.zeros(3, 2))  # 100 and 101 are not of the state
        ours.load_state_dict(state)
        return made.keys("t"), made.weight("t"), ours.state_dict()

    for keys, weight, saved in at(ranks, work):
        assert torch.equal(keys, IDS)
        assert torch.equal(weight, one.get("t", IDS))
        assert all(torch.equal(saved[name], value) for name, value in state.items())

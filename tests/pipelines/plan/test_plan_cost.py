"""Bytes of a step, against those that ranks send; and what must hold of any plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from embtables.pipelines.config import RunConfig
from embtables.pipelines.plan.cost import step_time, traffic
from embtables.pipelines.plan.load import job_of, step_load
from embtables.pipelines.plan.machine import Link
from embtables.pipelines.plan.sample import read_sample
from embtables.pipelines.sources.parquet import ParquetReader
from embtables.pipelines.training.learner import Learner
from embtables.pipelines.training.rank_agreement import totals
from embtables.shard.world import World
from tests.pipelines.conftest import open_log
from tests.pipelines.plan.plan_for_tests import keys, machine, scenario, table
from tests.shard.threads_for_tests import Threads, in_threads

Make = Callable[..., RunConfig]
RANKS = (1, 2, 4, 16, 1024)


@World.register
class Counted:
    """Counts what a rank of a world of threads sends to others, an all_reduce as a ring sends it."""

    def __init__(self, world: Threads) -> None:
        self._world = world
        self.rank, self.size, self.sent, self.received = world.rank, world.size, 0.0, 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._world, name)

    def all_to_all(self, out: Tensor, given: Tensor, received: Sequence[int], sent: Sequence[int]) -> None:
        self.sent += (sum(sent) - sent[self.rank]) * given.element_size()
        self.received += (sum(received) - received[self.rank]) * out.element_size()
        self._world.all_to_all(out, given, received, sent)

    def all_reduce(self, values: Tensor) -> None:
        self.sent += 2 * values.numel() * values.element_size() * (self.size - 1) / self.size
        self._world.all_reduce(values)

    def all_gather(self, values: Tensor) -> list[Tensor]:
        found = self._world.all_gather(values)
        self.sent += (8 + max(map(len, found)) * values.element_size()) * (self.size - 1)
        return found


def _sent(config: RunConfig, ranks: int, steps: int) -> list[tuple[float, float]]:
    """Bytes that each rank sent and received per step by all_to_all and all_reduce."""

    def work(world: Any) -> tuple[float, float]:
        counted: Any = Counted(world)
        log = open_log(config)
        fitted = log.fit_transforms(0)
        batch = config.train.batch_size
        reader = ParquetReader(log, "train", batch_size=batch, fitted=fitted, seed=0, rank=world.rank, world_size=ranks)
        learner = Learner(config, counted)
        counted.sent = counted.received = 0.0
        items = reader.__iter__()
        for _ in range(steps):
            item = next(items)
            of_all = totals(counted, item.batch, item.position, stop=False)
            learner.train_step(item.batch, 1.0, of_all.weight)
        items.close()
        return counted.sent / steps, counted.received / steps

    return in_threads(ranks, work)


USER = {"name": "user", "num_rows": 64, "dim": 8, "optimizer": {"kind": "adagrad", "learning_rate": 0.1}}
GROWING = {"name": "item", "dim": 8, "optimizer": {"kind": "adagrad", "learning_rate": 0.1}}
KINDS: dict[str, dict[str, Any]] = {
    "fixed": {},
    "replicated": {"tables": [USER, {**USER, "name": "item", "num_rows": 2}], "train.clip_norm": 1.0},
    "grows": {"tables": [USER, {**GROWING, "admission": {"kind": "min_count", "count": 2}, "max_rows": 500}]},
    "first-order weights": {"model": {"kind": "deepfm", "hidden_sizes": [16]}},
    "frozen, clipped": {"tables": [USER, {**GROWING, "trainable": False}], "train.clip_norm": 1.0},
    "cold row": {
        "tables": [USER, {**GROWING, "cold_row": "trained", "admission": {"kind": "min_count", "count": 2}}],
        "train.clip_norm": 1.0,
    },
    "ttl": {"tables": [USER, {**GROWING, "ttl_seconds": 900_000}], "data.shuffle": None, "train.epochs": 1},
}


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_ranks_send_the_bytes_that_were_predicted(make_config: Make, kind: str, ranks: int) -> None:
    config = make_config(**KINDS[kind])
    sample = read_sample(config, 10_000, shown=False)
    learner = Learner(config)
    job = job_of(config, sum(p.numel() for p in learner.parameters())).at(ranks, config.train.batch_size)
    nothing = dict.fromkeys(job.tables, 0.0)
    rows = dict.fromkeys(job.tables, 1e6)
    load = step_load(job, sample.keys, rows, nothing, ranks, job.batch_rows)
    predicted = traffic(job, load)
    found = _sent(config, ranks, sample.rows // job.batch_rows)
    if ranks == 1:
        assert predicted.sent == 0.0
        return
    assert predicted.sent == pytest.approx(np.mean([sent for sent, _ in found]), rel=0.02)
    assert predicted.busiest == pytest.approx(max(max(each) for each in found), rel=0.15)


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 99),
    dim=st.integers(1, 256),
    each=st.integers(1, 4),
    values=st.integers(2, 500),
    fixed=st.booleans(),
)
def test_what_holds_of_any_plan(seed: int, dim: int, each: int, values: int, fixed: bool) -> None:
    samples = {"t": keys(np.random.default_rng(seed), 200, each, values, 100)}
    narrow, wide = (scenario([table("t", d, rows=values if fixed else None)], samples, 100) for d in (dim, dim + 16))
    alone = narrow.at(1)
    assert alone.traffic.sent == alone.traffic.busiest == 0.0
    assert alone.time.latency == alone.time.wire == alone.time.owning == 0.0
    for ranks in RANKS:
        here, there = narrow.at(ranks), wide.at(ranks)
        assert here.load.skew >= 1.0
        assert here.traffic.busiest >= here.traffic.sent * (1 - 1e-9)
        assert here.traffic.sent <= there.traffic.sent
        assert here.memory.total < there.memory.total
        assert 0.0 < here.time.seconds <= there.time.seconds * (1 + 1e-9)
        assert min(here.time.parts().values()) >= 0.0
    slow = step_time(narrow.job, narrow.at(4).load, machine(), Link(0.001))
    assert slow.seconds > narrow.at(4).time.seconds


def test_a_replicated_table_sends_its_rows_and_no_keys() -> None:
    samples = {"t": keys(np.random.default_rng(0), 20_000, 2, 50, 100)}
    run = scenario([table("t", 8, rows=50)], samples, 100)
    sharded, replicated = run.at(4), run.at(4, 6_400)
    assert (sharded.replicated, replicated.replicated) == (frozenset(), {"t"})
    assert replicated.traffic.keys == replicated.traffic.rows == replicated.traffic.exchanges == 0
    assert replicated.traffic.reduced - sharded.traffic.reduced == pytest.approx(4 * (50 * 9 + 1) * 2 * 3 / 4)
    assert replicated.memory.tables["t"].num_rows == 50 > sharded.memory.tables["t"].num_rows


def test_a_hot_key_makes_its_owner_the_slowest() -> None:
    hot = {"t": keys(np.random.default_rng(0), 200, 3, 2, 100)}
    even = {"t": keys(np.random.default_rng(0), 200, 3, 100_000, 100)}
    assert scenario([table("t")], hot, 100).at(8).load.skew > 2 * scenario([table("t")], even, 100).at(8).load.skew


def test_reading_is_not_shared_by_ranks() -> None:
    """Where the log is slow to decode, ranks do not help: each decodes all of it."""
    samples = {"t": keys(np.random.default_rng(0), 200, 1, 50, 100)}
    slow = machine().reading.model_copy(update={"decode": 1e-3, "alone": 1e-3})
    curve = [scenario([table("t")], samples, 100, machine=machine(reading=slow)).at(ranks) for ranks in (1, 2)]
    assert curve[1].time.bound_by == "reading"
    assert curve[1].rows_per_second < 1.1 * curve[0].rows_per_second

"""Samples of an event log as training batches: the loop trains on them, and goes on from a batch as if undisturbed."""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from embtables.errors import StateError
from embtables.inputs.features import FittedTransforms, Needs
from embtables.pipelines.config import Online, RunConfig
from embtables.pipelines.online.event_flow import EventFlow
from embtables.pipelines.online.intervals import Intervals
from embtables.pipelines.online.join.joiner import SetAside
from embtables.pipelines.training.checkpoint import dense_arrays
from embtables.pipelines.training.learner import Learner
from embtables.pipelines.training.loop import TrainLoop
from embtables.pipelines.training.run_content import RunState
from embtables.shard.world import SingleRank
from tests.contents import flat, same
from tests.pipelines.online.events_for_tests import Event, LogInMemory, batch, click, imp, passed

Make = Callable[..., RunConfig]


@pytest.fixture
def config(make_config: Make) -> RunConfig:
    events = {
        **{"log": "folder:///events", "item": "item", "window_seconds": 100},
        **{"late_window_seconds": 200, "negative_rate": 0.5},
    }
    return make_config(
        **{
            "labels": [{"column": "click"}],
            "dense": [{"column": "price", "fill_null": 0.0}],
            "event_time": {"column": "event_time"},
            "evaluate": {"negative_sampling_rate": 0.5},
            "train.batch_size": 40,
            "model": {"kind": "fm"},
            "online": {"events": events, "sync_rows": 1_000_000},
        }
    )


def busy_log() -> LogInMemory:
    rng, log = random.Random(3), LogInMemory(2)
    for number in range(60):
        partition = number % 2
        events: list[Event] = []
        for each in range(10):
            values: dict[str, Any] = {"user": rng.randrange(40), "price": rng.random(), "tags": [rng.randrange(9)]}
            events.append(imp(f"{number}-{each}", f"item-{rng.randrange(30)}", 20 * number + each, **values))
        clicks = [click(e.request or "", e.item or "", e.at + rng.choice([5, 150])) for e in rng.sample(events, 4)]
        log.append(partition, batch(events))
        log.append(partition, batch(clicks))
    passed(log, 5000)
    return log


def nobody(reason: str, events: pa.RecordBatch) -> None:
    """What is set aside is not looked at."""


def source(
    log: LogInMemory, config: RunConfig, tables: dict[str, pa.Table] | None = None, set_aside: SetAside = nobody
) -> EventFlow:
    assert config.online is not None
    assert config.online.events is not None
    return EventFlow(
        log,
        config.online.events,
        config,
        FittedTransforms(),
        needs=Needs(weight=False),
        batch_rows=config.train.batch_size,
        world=SingleRank(),
        is_replay=True,
        set_aside=set_aside,
        tables=tables,
    )


def trained(config: RunConfig, of: EventFlow, state: RunState, learner: Learner) -> None:
    assert config.online is not None
    TrainLoop(learner, Intervals(of, config.online, learner.world), state, []).run()


def contents(learner: Learner) -> dict[str, Any]:
    return {**flat(learner.tables), **dense_arrays(learner)}


@pytest.mark.parametrize("steps", [1, 7, 12])
def test_the_loop_goes_on_after_a_restart_as_if_undisturbed(config: RunConfig, steps: int) -> None:
    log = busy_log()
    whole, of_whole = Learner(config), RunState()
    trained(config, source(log, config), of_whole, whole)
    assert of_whole.rows > 400
    assert of_whole.step == -(-of_whole.rows // 40)

    short = config.model_copy(update={"train": config.train.model_copy(update={"max_steps": steps})})
    learner, state, first = Learner(short), RunState(), source(log, config)
    trained(short, first, state, learner)
    assert (state.step, state.stretch) == (steps, 0)
    # As a version has it: JSON, and tables in files.
    position, tables = json.loads(json.dumps(state.position)), first.tables()
    state.position = position
    learner.config = config
    trained(config, source(log, config, tables), state, learner)
    assert (state.step, state.rows) == (of_whole.step, of_whole.rows)
    assert same(contents(learner), contents(whole))


def test_labels_times_and_features_are_those_of_the_impressions(config: RunConfig) -> None:
    log = LogInMemory()
    log.append(0, batch([imp("r", f"item-{n}", n, user=n, price=n / 2, tags=[1, n]) for n in range(6)]))
    log.append(0, batch([click("r", "item-4", 7), click("r", "item-5", 7)]))
    (item,) = list(source(log, config).items(None))
    assert item.batch.labels[:, 0].tolist() == [1.0, 1.0]
    assert item.batch.dense[:, 0].tolist() == [2.0, 2.5]
    assert item.batch.event_time_us is not None
    assert (item.batch.event_time_us - 1_700_000_000_000_000).tolist() == [4_000_000, 5_000_000]


def test_a_column_that_the_model_does_not_read_may_be_anything(config: RunConfig) -> None:
    log = LogInMemory()
    for number, note in enumerate(["text", 7, {"a": 1}]):
        values = {"user": number, "price": 1.0, "tags": [1], "note": note}
        log.append(0, batch([imp(f"{number}", "item-1", 0, **values), click(f"{number}", "item-1", 1)]))
    assert [item.batch.labels[:, 0].tolist() for item in source(log, config).items(None)] == [[1.0, 1.0, 1.0]]


def test_a_sample_without_meaning_is_set_aside_and_the_rest_is_trained_on(config: RunConfig) -> None:
    log, given = LogInMemory(), Counter[str]()
    log.append(0, batch([imp("r", f"item-{n}", n, user=n, price=float("nan") if n == 1 else 1.0) for n in range(3)]))
    log.append(0, batch([imp("q", "item-1", 3, user=1, price=2.0, tags=[1])]))
    log.append(0, batch([click("r", f"item-{n}", 7) for n in range(3)]))

    def note(reason: str, events: pa.RecordBatch) -> None:
        given[reason.partition(":")[0]] += events.num_rows

    flow = source(log, config, set_aside=note)
    assert [item.batch.num_rows for item in flow.items(None)] == [2]
    assert given == {"price": 1}
    assert sum(flow.quarantined.values()) == 1


def test_a_position_without_its_tables_is_refused(config: RunConfig) -> None:
    log = busy_log()
    position = next(source(log, config).items(None)).position.to_json()
    with pytest.raises(StateError, match="not the tables"):
        next(source(log, config).items(position))


def test_a_run_that_was_stopped_with_the_last_batch_of_an_interval_saves_what_it_stood_at(config: RunConfig) -> None:
    log, options = busy_log(), Online(sync_rows=40)
    first = source(log, config)
    stretch = Intervals(first, options, SingleRank()).stretch(0, None)
    assert stretch is not None
    position = next(iter(stretch)).position.to_json()  # stopped here: nobody has said that the interval is over
    tables = first.tables()
    again = source(log, config, tables)
    intervals = Intervals(again, options, SingleRank())
    over = intervals.stretch(0, position)
    assert over is not None
    assert list(over) == []
    assert {name: table.to_pylist() for name, table in again.tables().items()} == {
        name: table.to_pylist() for name, table in tables.items()
    }
    after = intervals.stretch(1, over.next_position)
    assert after is not None
    follows = next(iter(after)).batch
    whole = list(source(log, config).items(None))
    assert follows.labels.tolist() == whole[1].batch.labels.tolist()
    assert follows.dense.tolist() == whole[1].batch.dense.tolist()


def test_intervals_go_on_while_the_first_negatives_follow_positives(config: RunConfig) -> None:
    """Clicks come at once, negatives after a window of 100 s: their times are from before the newest clicks'."""
    log = LogInMemory()
    for at in range(400):
        shown = [imp(f"{at}-{each}", f"item-{each}", at, user=each, price=0.5, tags=[1]) for each in range(3)]
        log.append(0, batch(shown))
        log.append(0, batch([click(f"{at}-0", "item-0", at)]))
    assert config.online is not None
    every_10_seconds = Online.model_validate(config.online.model_dump() | {"sync_rows": None, "sync_seconds": 10})
    config = config.model_copy(update={"train": config.train.model_copy(update={"batch_size": 5})})
    flow = source(log, config)
    intervals = Intervals(flow, every_10_seconds, SingleRank())
    ends, position = list[int](), None
    while (stretch := intervals.stretch(len(ends), position)) is not None:
        assert list(stretch)
        assert flow.reached_us is not None
        ends.append(flow.reached_us // 1_000_000)
        position = stretch.next_position
    assert max(after - before for before, after in itertools.pairwise(ends)) <= 15

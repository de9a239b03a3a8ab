"""The loop over a source that is no parquet log: the same rows, the same bits, in stretches of the source's own."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embtables.inputs.batch import Batch
from embtables.pipelines.config import RunConfig
from embtables.pipelines.run_dir import RunDir
from embtables.pipelines.sources.parquet import Log, ParquetReader
from embtables.pipelines.training import checkpoint
from embtables.pipelines.training.learner import Learner
from embtables.pipelines.training.run_content import RunState
from embtables.pipelines.training.shutdown import say_what_is_waited_for
from embtables.pipelines.training.train import train, train_to_end
from embtables.state.read.find import find
from tests.contents import flat, same

Make = Callable[..., RunConfig]
LENGTH = 4  # batches of a stretch


@dataclass(frozen=True)
class At:
    batch_number: int

    def to_json(self) -> dict[str, Any]:
        return {"after": self.batch_number}


@dataclass(frozen=True)
class Item:
    batch: Batch
    position: At


@dataclass
class Some:
    items: list[Item]
    title: str = "some"
    total_rows_hint: int | None = None
    next_position: None = None

    def __post_init__(self) -> None:
        self.quarantined: dict[str, int] = {}

    def __iter__(self) -> Generator[Item, None, None]:
        yield from self.items


class InMemory:
    def __init__(self, batches: list[Batch]) -> None:
        self._items = [Item(batch, At(number)) for number, batch in enumerate(batches)]
        self.bad_files: dict[str, str] = {}
        self.asked: list[tuple[int, Any]] = []

    def stretch(self, number: int, position: Mapping[str, Any] | None) -> Some | None:
        self.asked.append((number, position))
        begin = number * LENGTH if position is None else position["after"] + 1
        end = (number + 1) * LENGTH
        return Some(self._items[begin:end]) if number * LENGTH < len(self._items) else None


def tensors(run: RunDir) -> dict[str, Any]:
    learner = Learner(run.config())
    checkpoint.load(run.checkpoints, find(run.checkpoints, "last"), learner)
    return {**flat(learner.tables), **checkpoint.dense_arrays(learner)}


def test_any_source_trains_as_the_log_does_and_goes_on_from_its_position(make_config: Make) -> None:
    config = make_config(**{"data.split": None, "train.epochs": 1})
    log = Log(config, config.data)
    fitted = log.fit_transforms(config.train.seed)
    options: dict[str, Any] = {"batch_size": 100, "fitted": fitted, "seed": config.train.seed}
    batches = [item.batch for item in ParquetReader(log, "train", **options)]
    whole = RunDir.open(Path(train(config, shown=False)["run_dir"]))

    def run_on(source: InMemory, state: RunState, learner: Learner, run: RunDir) -> dict[str, Any]:
        options: dict[str, Any] = {"shown": False, "on_error": say_what_is_waited_for}
        return train_to_end(learner, run, source, log, fitted, state, **options)

    source, run = InMemory(batches), RunDir.create(config)
    report = run_on(source, RunState(), Learner(config), run)
    assert (report["rows"], report["steps"], report["epochs"]) == (1800, 18, 5)
    assert source.asked == [(number, None) for number in range(6)]
    assert same(tensors(run), tensors(whole))

    half = config.model_copy(update={"train": config.train.model_copy(update={"max_steps": 10})})
    state, run = RunState(), RunDir.create(half)
    run_on(InMemory(batches), state, Learner(half), run)
    assert (state.stretch, state.position) == (2, {"after": 9})
    learner, source, rest = Learner(config), InMemory(batches), RunDir.create(config)
    checkpoint.load(run.checkpoints, find(run.checkpoints, "last"), learner)
    state.finished = False
    run_on(source, state, learner, rest)
    assert source.asked == [(2, {"after": 9}), (3, None), (4, None), (5, None)]
    assert same(tensors(rest), tensors(whole))

"""The loop with hooks from outside: what it calls, when, and that a hook ends it. No run folder, no evaluation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from embtables.pipelines.config import RunConfig
from embtables.pipelines.sources.epochs import LogEpochs
from embtables.pipelines.sources.files.record import FilesRecord
from embtables.pipelines.sources.parquet import Log
from embtables.pipelines.sources.protocol import Stretch
from embtables.pipelines.training.hooks.hook import Hook, StepDone
from embtables.pipelines.training.learner import Learner
from embtables.pipelines.training.loop import TrainLoop
from embtables.pipelines.training.run_content import RunState
from embtables.shard.world import SingleRank

Make = Callable[..., RunConfig]


class CountsSteps(Hook):
    """Ends the loop after `most` steps; it writes down every call."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.calls: list[str] = []
        self.losses: list[float] = []

    def is_done(self, state: RunState) -> bool:
        return len(self.losses) >= self.most

    def before_stretch(self, state: RunState, stretch: Stretch) -> None:
        self.calls.append(stretch.title)

    def after_step(self, state: RunState, step: StepDone) -> None:
        self.losses.append(float(step.loss))
        self.calls.append(f"step {state.step}, {step.totals.rows} rows")
        assert state.position is not None

    def after_stretch(self, state: RunState, *, whole: bool) -> None:
        self.calls.append(f"{'whole' if whole else 'part'}, epoch {state.stretch}")

    def at_end(self, state: RunState) -> None:
        self.calls.append("end")


@pytest.fixture
def make_loop(make_config: Make, tmp_path: Path) -> Callable[..., TrainLoop]:
    def make(*hooks: Hook, **options: object) -> TrainLoop:
        config = make_config(**{"data.split": None, "train.batch_size": 600, "train.epochs": 2})
        log, learner = Log(config, config.data), Learner(config)
        fitted = log.fit_transforms(config.train.seed)
        source = LogEpochs(
            log,
            fitted,
            config.train,
            SingleRank(),
            needs=learner.needs,
            epoch_rows=None,
            quarantine_dir=tmp_path / "quarantine",
            record=FilesRecord(None),
        )
        return TrainLoop(learner, source, RunState(), hooks, **options)  # type: ignore[arg-type]

    return make


def test_a_hook_from_outside_sees_every_step_and_ends_the_loop(make_loop: Callable[..., TrainLoop]) -> None:
    hook = CountsSteps(most=4)
    loop = make_loop(hook)
    loop.run()
    first = ["epoch 1 of 2", *(f"step {step}, 600 rows" for step in (1, 2, 3)), "whole, epoch 1"]
    assert hook.calls == [*first, "epoch 2 of 2", "step 4, 600 rows", "part, epoch 1", "end"]
    assert (loop.state.step, loop.state.rows, loop.state.stretch) == (4, 2_400, 1)
    hook.most = 6
    loop.run()  # goes on from where the state stands
    assert hook.calls[9:] == ["epoch 2 of 2", *(f"step {step}, 600 rows" for step in (5, 6)), "part, epoch 1", "end"]
    assert hook.losses[5] < hook.losses[0]


def test_without_hooks_the_source_alone_ends_the_loop(make_loop: Callable[..., TrainLoop]) -> None:
    loop = make_loop()
    loop.run()
    assert (loop.state.step, loop.state.stretch, loop.state.position) == (6, 2, None)


def test_hooks_are_called_in_their_order_and_see_a_request_to_stop(make_loop: Callable[..., TrainLoop]) -> None:
    seen: list[tuple[str, bool]] = []

    class Named(Hook):
        def __init__(self, name: str) -> None:
            self.name = name

        def after_step(self, state: RunState, step: StepDone) -> None:
            seen.append((self.name, step.totals.stop))

        def is_done(self, state: RunState) -> bool:
            return seen[-1:] == [("second", True)]

    asked = iter([False, True])
    make_loop(Named("first"), Named("second"), is_asked_to_stop=lambda: next(asked)).run()
    assert seen == [("first", False), ("second", False), ("first", True), ("second", True)]

"""The loop of training: the batches of a source, a step for each, and hooks between them.

    source (stretch, position) -> batch -> learner.train_step -> hooks, in their order

What is a stretch (an epoch of a log, an hour) is the source's own affair; what happens between batches (figures,
checkpoints, a stop) is that of the hooks (`hooks/hook.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing

import torch

from embtables.errors import TrainingError
from embtables.pipelines.sources.protocol import BatchSource, SourceItem, Stretch
from embtables.pipelines.training.hooks.hook import Hook, StepDone
from embtables.pipelines.training.learner import Learner, learning_rate_factor
from embtables.pipelines.training.rank_agreement import StepTotals, totals
from embtables.pipelines.training.run_content import RunState


class TrainLoop:
    """Trains on the batches of a source from where the run's state stands, until they or a hook end it.

    Args:
        state: is changed in place.
        is_asked_to_stop: asked before every step; the ranks exchange it in the step's totals, which hooks see.
    """

    def __init__(
        self,
        learner: Learner,
        source: BatchSource,
        state: RunState,
        hooks: Sequence[Hook],
        *,
        is_asked_to_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.learner = learner
        self.world = learner.world
        self.config = learner.config
        self.source = source
        self.state = state
        self.hooks = tuple(hooks)
        self._is_asked_to_stop = is_asked_to_stop

    def run(self) -> None:
        """Trains what is left. Raises what the source, a step or a hook raises."""
        while not self._done():
            stretch = self.source.stretch(self.state.stretch, self.state.position)
            if stretch is None:
                break
            self._stretch(stretch)
        for hook in self.hooks:
            hook.at_end(self.state)

    def _done(self) -> bool:
        state, max_steps = self.state, self.config.train.max_steps
        return (
            state.finished
            or (max_steps is not None and state.step >= max_steps)
            or any(hook.is_done(state) for hook in self.hooks)
        )

    def _stretch(self, stretch: Stretch) -> None:
        """The batches up to the source's next boundary; ends early where the run is done."""
        state = self.state
        for hook in self.hooks:
            hook.before_stretch(state, stretch)
        whole = self._batches(stretch)
        if whole:
            state.stretch += 1
            position = stretch.next_position
            state.position = None if position is None else dict(position)
        for hook in self.hooks:
            hook.after_stretch(state, whole=whole)

    def _batches(self, stretch: Stretch) -> bool:
        """Trains on the batches of a stretch. Returns whether it was done to its end."""
        items = stretch.__iter__()
        with closing(items):
            started = time.perf_counter()
            for item in items:
                waited = time.perf_counter() - started
                for hook in self.hooks:
                    hook.before_step(self.state, item)
                started = time.perf_counter()
                of_all = totals(self.world, item.batch, item.position, stop=self._is_asked_to_stop())
                done = StepDone(self._step(item, of_all), of_all, item.batch)
                self.state.train_seconds += waited + time.perf_counter() - started
                for hook in self.hooks:
                    hook.after_step(self.state, done)
                if self._done():
                    return False
                started = time.perf_counter()
        return True

    def _step(self, item: SourceItem, of_all: StepTotals) -> torch.Tensor:
        state = self.state
        if of_all.rows == 0:
            # All rows of the batch were set aside: there is nothing to learn from, at any rank.
            state.position = item.position.to_json()
            return torch.zeros(())
        factor = learning_rate_factor(self.config.train.schedule, state.step, state.stretch, state.total_steps)
        try:
            loss = self.learner.train_step(item.batch, factor, of_all.weight if self.world.size > 1 else None)
        except TrainingError as error:
            raise TrainingError(error.message, step=state.step + 1, **error.path) from None
        state.step += 1
        state.rows += of_all.rows
        state.position = item.position.to_json()
        return loss

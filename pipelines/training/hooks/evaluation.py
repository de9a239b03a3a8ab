"""Figures of the validation part: every so many steps or after every stretch. The best state so far is kept."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from embtables.errors import DataError
from embtables.inputs.features import FittedTransforms
from embtables.pipelines.prepare.log_splits import has_part
from embtables.pipelines.progress import say
from embtables.pipelines.sources.parquet import Log, LogPart
from embtables.pipelines.sources.quarantine import begin_list
from embtables.pipelines.training.figures.evaluate import evaluate
from embtables.pipelines.training.hooks.checkpoints import Checkpoints
from embtables.pipelines.training.hooks.hook import Hook, StepDone
from embtables.pipelines.training.learner import Learner
from embtables.pipelines.training.metrics_log import MetricsLog
from embtables.pipelines.training.run_content import RunState
from embtables.pipelines.warn import Warnings
from embtables.state.read.find import BEST


class Evaluation(Hook):
    """Evaluates the learner on parts of a log, and has a checkpoint written every time.

    Args:
        log: the log whose parts they are.
        quarantine_dir: each part's bad rows are listed in a folder of its name below; None: they are counted alone.
    """

    def __init__(
        self,
        learner: Learner,
        log: Log,
        fitted: FittedTransforms,
        checkpoints: Checkpoints,
        metrics: MetricsLog,
        warnings: Warnings,
        *,
        quarantine_dir: Path | None,
        shown: bool,
    ) -> None:
        self._learner = learner
        self._log = log
        self._fitted = fitted
        self._checkpoints = checkpoints
        self._metrics = metrics
        self._warnings = warnings
        self._quarantine_dir = quarantine_dir
        self._shown = shown

    def is_done(self, state: RunState) -> bool:
        """See Hook: whether it is time to stop early."""
        stopping = self._learner.config.train.early_stopping
        return stopping is not None and state.evaluations_without_gain >= stopping.patience

    def after_step(self, state: RunState, step: StepDone) -> None:
        """See Hook."""
        every = self._learner.config.train.evaluate_every_steps
        if every is not None and state.step % every == 0:
            self._validate(state)

    def after_stretch(self, state: RunState, *, whole: bool) -> None:
        """See Hook."""
        if whole and self._learner.config.train.evaluate_every_steps is None:
            self._validate(state)

    def at_end(self, state: RunState) -> None:
        """See Hook."""
        if state.evaluated_step != state.step:
            self._validate(state)

    def figures(self, part: LogPart) -> dict[str, Any]:
        """An evaluation by all ranks, which get the same figures."""
        learner = self._learner
        scorer = learner.scorer(self._fitted)
        # A part is evaluated again and again, each time with the same bad rows.
        folder = None if self._quarantine_dir is None else self._quarantine_dir / part
        if folder is not None:
            begin_list(folder, learner.world.rank)
        return evaluate(
            scorer,
            learner.config,
            self._log,
            part,
            world=learner.world,
            quarantine_dir=folder,
            warnings=self._warnings,
            shown=self._shown,
        )

    def _validate(self, state: RunState) -> None:
        state.evaluated_step = state.step
        if not has_part(self._learner.config, "validation"):
            self._checkpoints.save(state)
            return
        figures = self.figures("validation")
        self._metrics.evaluated(state.step, state.stretch, "validation", figures)
        better = self._judge(state, figures)
        self._checkpoints.save(state, BEST if better else None)

    def _judge(self, state: RunState, figures: dict[str, Any]) -> bool:
        """Whether the state is the best so far, which it then records."""
        task, stopping = self._learner.task, self._learner.config.train.early_stopping
        monitor = task.monitor(None if stopping is None else stopping.metric)
        value = figures.get(monitor.figure)
        if value is None or not math.isfinite(value):
            raise DataError(
                f"the validation part gives no {monitor.figure}, which decides which version is best: what is left of "
                "it holds only one class, or no rows with a weight; look at data.split and data.where"
            )
        gain = monitor.gain(value)
        better = state.best is None or gain > state.best
        if better:
            state.best, state.best_step, state.evaluations_without_gain = gain, state.step, 0
        else:
            state.evaluations_without_gain += 1
        if self._shown:
            mark = " (best so far)" if better else ""
            shown = dict.fromkeys((*task.headline, monitor.figure))
            values = ", ".join(
                f"{name.replace('_', ' ')} {figures[name]:.4f}" for name in shown if figures[name] is not None
            )
            say(f"step {state.step}: validation {values}{mark}")
        return better

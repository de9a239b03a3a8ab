"""The loop of training: batches, and what happens between two of them.

    source (stretch, position) -> batch -> learner.train_step -> metrics.jsonl, TensorBoard
    every evaluation: validation figures -> best so far? -> checkpoint (last, and best if it is)
    at the end: the best checkpoint (else the last state) is evaluated on the test part, once

A checkpoint holds rows, optimizer state, dense weights, random state and the source's position after the last batch
trained on, so a killed run that is resumed ends with the same bits as one that was not.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import torch

from embtables.errors import DataError
from embtables.inputs.features import FittedTransforms
from embtables.pipelines.prepare.log_splits import has_part
from embtables.pipelines.progress import RowProgress, say
from embtables.pipelines.run_dir import RunDir
from embtables.pipelines.sources.parquet import Log, Part
from embtables.pipelines.sources.protocol import BatchSource, SourceItem, Stretch
from embtables.pipelines.training import checkpoint
from embtables.pipelines.training.evaluate import evaluate
from embtables.pipelines.training.learner import Learner, learning_rate_factor
from embtables.pipelines.training.metrics_log import MetricsLog
from embtables.pipelines.training.rank_agreement import StepTotals, rank_0_says, totals
from embtables.pipelines.training.run_content import RunState, run_content, written_content
from embtables.pipelines.training.set_aside import SetAside
from embtables.pipelines.training.shutdown import OnError, closing_chain, wait_for_last
from embtables.pipelines.training.signals import InterruptedRunError, StopRequest
from embtables.state.folder.version_folder import StateFolder, Writer
from embtables.state.format.manifest import Manifest
from embtables.state.read.find import BEST, has_best
from embtables.state.write.version_writer import VersionWriter


class TrainLoop:
    """The loop over the batches of one run, from where its state stands.

    Args:
        source: the batches; what is a stretch of it (an epoch, an hour) is its own affair.
        log: the log that parts are evaluated on.
        on_error: is told of an error that ends the run, before a version in writing is waited for.
    """

    def __init__(
        self,
        learner: Learner,
        run: RunDir,
        source: BatchSource,
        log: Log,
        fitted: FittedTransforms,
        state: RunState,
        *,
        shown: bool,
        on_error: OnError,
    ) -> None:
        self.learner = learner
        self.world = learner.world
        self.config = learner.config
        self.run = run
        self.source = source
        self.log = log
        self.fitted = fitted
        self.state = state
        self.shown = shown
        self._on_error = on_error
        self.resumed_from: list[Manifest] | None = None
        self._set_aside: SetAside | None = None
        self._stop = StopRequest(run.stop_file if self.world.size > 1 and self.world.rank == 0 else None)

    def run_to_end(self) -> dict[str, Any]:
        """Trains what is left, evaluates, writes report.json and returns it."""
        writes = self.world.rank == 0
        metrics = MetricsLog(self.run, self.state.step, writes=writes)
        with self._stop, self._checkpoints() as self._chain, metrics as log:
            while not self._done():
                stretch = self.source.stretch(self.state.epoch, self.state.position)
                if stretch is None:
                    break
                self._stretch(stretch, log)
            if self.state.evaluated_step != self.state.step:
                self._evaluate(log)
            if not self.state.finished:
                self.state.finished = True
                self._save()
            wait_for_last(self._chain, self.run)
            return self._report()

    @contextmanager
    def _checkpoints(self) -> Iterator[VersionWriter]:
        """The run's chain of versions, which these ranks alone write to."""
        with ExitStack() as stack:
            folder = StateFolder(self.run.checkpoints)
            holder = stack.enter_context(Writer(folder)) if self.world.rank == 0 else folder
            chain = VersionWriter(holder, "resume", self.learner.tables, world=self.world)
            if self.resumed_from is not None:
                if self.world.rank == 0:
                    self.run.truncate_metrics(self.state.step)
                chain.go_on_from(self.resumed_from[-1], len(self.resumed_from) - 1)
            stack.callback(self._tell_failures, chain, "")
            with closing_chain(chain, self._stop, self._on_error):
                yield chain

    def _done(self) -> bool:
        train, state = self.config.train, self.state
        stopping = train.early_stopping
        return (
            state.finished
            or (train.max_steps is not None and state.step >= train.max_steps)
            or (stopping is not None and state.evaluations_without_gain >= stopping.patience)
        )

    def _stretch(self, stretch: Stretch, log: MetricsLog) -> None:
        """The batches up to the source's next boundary; ends early where the run is done."""
        train, state = self.config.train, self.state
        self._set_aside = SetAside(self.world, state, self.source, stretch, rows=self.config.data.on_bad_row != "error")
        items = stretch.__iter__()
        with RowProgress(stretch.title, stretch.total_rows_hint, shown=self.shown) as progress, closing(items):
            started = time.perf_counter()
            for item in items:
                of_all = totals(self.world, item.batch, item.position, stop=self._stop.is_asked())
                loss = self._step(item, of_all)
                log.add(loss, of_all.rows)
                state.train_seconds += time.perf_counter() - started
                figures = log.flush(state.step, state.epoch) if state.step % train.log_every_steps == 0 else None
                progress.advance(of_all.rows, figures)
                self._between_batches(log, stop=of_all.stop if self.world.size > 1 else self._stop.is_asked())
                if self._done():
                    self._report_set_aside(log)
                    return
                started = time.perf_counter()
        self._report_set_aside(log)
        state.epoch += 1
        state.position, state.quarantined = None, {}
        if train.evaluate_every_steps is None:
            self._evaluate(log)

    def _report_set_aside(self, log: MetricsLog) -> None:
        """What was set aside in this epoch is written down and said: nothing is lost in silence."""
        self._count_set_aside()
        rows, files = self.state.quarantined, self.state.quarantined_files
        found = {**rows, **{f"file {path}": reason for path, reason in files.items()}}
        if not found or self.world.rank:
            return
        log.append([{"step": self.state.step, "epoch": self.state.epoch, "quarantined": found}])
        say(f"set aside in this epoch: {sum(rows.values()):,} bad rows, {len(files)} bad files; see {self.run.path}")

    def _count_set_aside(self) -> None:
        if self._set_aside is not None:
            self._set_aside.count()

    def _step(self, item: SourceItem, of_all: StepTotals) -> torch.Tensor:
        state = self.state
        factor = learning_rate_factor(self.config.train.schedule, state.step, state.epoch, state.total_steps)
        loss = self.learner.train_step(item.batch, factor, of_all.weight if self.world.size > 1 else None)
        state.step += 1
        state.rows += of_all.rows
        state.position = item.position.to_json()
        return loss

    def _between_batches(self, log: MetricsLog, *, stop: bool) -> None:
        """What may happen at a batch boundary: a stop by signal, an evaluation, a checkpoint."""
        train, state = self.config.train, self.state
        if stop:
            if self.shown and self.world.size == 1:
                say(f"{self._stop.name}: what was learned is saved, which a second Ctrl-C gives up")
            self._save()
            wait_for_last(self._chain, self.run)
            raise InterruptedRunError(
                f"stopped by {self._stop.name or 'another rank'} at step {state.step}, saved; "
                f"go on with: embtables train --resume {self.run.path}"
            )
        if train.evaluate_every_steps is not None and state.step % train.evaluate_every_steps == 0:
            self._evaluate(log)
        elif train.checkpoint_every_steps is not None and state.step % train.checkpoint_every_steps == 0:
            self._save()

    def _evaluate(self, log: MetricsLog) -> None:
        """Figures of the validation part; the best so far is kept."""
        state = self.state
        state.evaluated_step = state.step
        if not has_part(self.config, "validation"):
            self._save()
            return
        figures = self._figures("validation")
        log.evaluated(state.step, state.epoch, "validation", figures)
        stopping = self.config.train.early_stopping
        monitor = self.learner.task.monitor(None if stopping is None else stopping.metric)
        value = figures.get(monitor.figure)
        if value is None:
            raise DataError(
                f"the validation part gives no {monitor.figure}: it holds only one class; look at data.split"
            )
        gain = monitor.gain(value)
        better = state.best is None or gain > state.best
        if better:
            state.best, state.best_step, state.evaluations_without_gain = gain, state.step, 0
        else:
            state.evaluations_without_gain += 1
        if self.shown:
            mark = " (best so far)" if better else ""
            shown = dict.fromkeys((*self.learner.task.headline, monitor.figure))
            values = ", ".join(f"{name.replace('_', ' ')} {figures[name]:.4f}" for name in shown)
            say(f"step {state.step}: validation {values}{mark}")
        self._save(BEST if better else None)

    def _save(self, pin: str | None = None) -> None:
        """Has a checkpoint written, which may fail: training goes on, the former one stays, the next tries again."""
        self._count_set_aside()
        content = written_content(self.config, self.state, self.fitted)
        self._chain.cut(checkpoint.dense_arrays(self.learner), content, () if pin is None else (pin,))
        self._tell_failures(self._chain)

    def _tell_failures(self, chain: VersionWriter, then: str = "; training goes on") -> None:
        for error in chain.failures if self.world.rank == 0 else ():
            say(f"warning: {error}{then}")
        chain.failures.clear()

    def _load_best(self) -> None:
        """The best state, unless the disk did not take it when it came."""
        has = rank_0_says(self.world, lambda: has_best(self.run.checkpoints))
        chain = checkpoint.find_on_all_ranks(self.world, self.run.checkpoints, "best") if has else None
        if chain is None or run_content(chain[-1]).state.step != self.state.best_step:
            if self.world.rank == 0:
                step = self.state.best_step
                say(f"warning: the best checkpoint, of step {step}, was not written; the last is evaluated")
            self.state.best_step = self.state.step
        else:
            checkpoint.load(self.run.checkpoints, chain, self.learner)

    def _report(self) -> dict[str, Any]:
        """The final figures: on the test part if there is one, else on the validation part."""
        state = self.state
        part: Part | None = next((p for p in ("test", "validation") if has_part(self.config, p)), None)
        figures: dict[str, Any] = dict.fromkeys(self.learner.task.headline)
        if state.best_step is not None and state.best_step != state.step:
            self._load_best()
        if part is not None:
            figures = self._figures(part)
        figures["evaluated_rows"] = figures.pop("rows", 0)
        report = {
            **figures,
            "part": part,
            "rows": state.rows,
            "rows_per_second": round(state.rows / state.train_seconds, 1) if state.train_seconds > 0 else None,
            "train_seconds": round(state.train_seconds, 2),
            "steps": state.step,
            "epochs": state.epoch,
            "best_step": state.best_step,
            "quarantined_rows": state.quarantined_rows,
            "quarantined_files": sorted({*state.quarantined_files, *self.source.bad_files}),
            "tables": {
                name: {"rows": stats.rows, "bytes": sum(stats.bytes_by_part.values()), **stats.counts}
                for name, stats in self.learner.tables.stats().items()
            },
            "seed": self.config.train.seed,
            "model": self.config.model.kind,
            **state.started_from,
            "run_dir": str(self.run.path),
        }
        if self.world.rank == 0:
            self.run.write_report(report)
        return report

    def _figures(self, part: Part) -> dict[str, Any]:
        """An evaluation by all ranks, which get the same figures."""
        scorer = self.learner.scorer(self.fitted)
        return evaluate(scorer, self.config, self.log, part, world=self.world, shown=self.shown)

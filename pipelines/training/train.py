"""Training: a new run, or one that continues, on the batches of a parquet log.

    the step (learner.py) in the loop (loop.py) over the epochs of a log (sources/epochs.py)
    between two batches: figures, progress, what was set aside, a stop, evaluation, checkpoints (hooks/)
    at the end: the best checkpoint (else the last state) is evaluated on the test part, once (final_report.py)

Several ranks run the same, each on its part of every batch (docs/sharding.md). Only rank 0 prints messages,
and writes what is not a checkpoint.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import ExitStack, nullcontext
from typing import Any

from embtables.inputs.features import FittedTransforms
from embtables.pipelines.config import RunConfig
from embtables.pipelines.prepare.log_splits import with_prepared_data
from embtables.pipelines.progress import say
from embtables.pipelines.run_dir import RunDir
from embtables.pipelines.run_place import RunPlace
from embtables.pipelines.sources.epochs import LogEpochs
from embtables.pipelines.sources.files.record import FilesRecord
from embtables.pipelines.sources.files.source import Source
from embtables.pipelines.sources.log import Log
from embtables.pipelines.sources.open_log import open_log
from embtables.pipelines.sources.protocol import BatchSource
from embtables.pipelines.training import checkpoint
from embtables.pipelines.training.begin import begin, go_on, look, to_serve, warnings_of
from embtables.pipelines.training.final_report import final_report
from embtables.pipelines.training.hooks.checkpoints import Checkpoints
from embtables.pipelines.training.hooks.evaluation import Evaluation
from embtables.pipelines.training.hooks.first_batch import FirstBatch
from embtables.pipelines.training.hooks.hook import Hook
from embtables.pipelines.training.hooks.metrics import Metrics
from embtables.pipelines.training.hooks.progress import Progress
from embtables.pipelines.training.hooks.publishing import Publishing, ToServe
from embtables.pipelines.training.hooks.set_aside import SetAside
from embtables.pipelines.training.hooks.stop import StopWhenAsked
from embtables.pipelines.training.learner import Learner
from embtables.pipelines.training.loop import TrainLoop
from embtables.pipelines.training.metrics_log import MetricsLog
from embtables.pipelines.training.rank_agreement import rank_0_first
from embtables.pipelines.training.run_content import RunState
from embtables.pipelines.training.shutdown import OnError, say_what_is_waited_for
from embtables.pipelines.training.signals import StopRequest
from embtables.pipelines.training.start.continue_from import FormerCheckpoint
from embtables.shard.world import SingleRank, World
from embtables.state.folder.version_folder import LeaseHolder, StateFolder
from embtables.state.format.manifest import Manifest


def train(
    config: RunConfig,
    *,
    former: RunDir | None = None,
    which: checkpoint.Which | None = None,
    fresh: Collection[str] = (),
    run: RunPlace | None = None,
    source: Source | None = None,
    world: World | None = None,
    shown: bool = True,
    on_error: OnError = say_what_is_waited_for,
) -> dict[str, Any]:
    """Trains a new run and returns its report: auc, log_loss, rows, rows_per_second, run_dir, ...

    Args:
        run: its folder, where it has been made, or its place in memory.
        source: the rows, if they are in memory.
        world: the ranks that train together, all of which call this; by default this process alone.
        former: a run whose checkpoint it begins with, under the rules of docs/format.md.
        which: that run's checkpoint, by default the best if there is one.
        fresh: tables that begin afresh nevertheless.
        on_error: is called with an error that ends the run, before a version in writing is waited for.

    Raises:
        StateError: the former run has no such checkpoint, or no rule converts it.
    """
    origin = None if former is None else FormerCheckpoint(former, config, which, fresh)
    world = SingleRank() if world is None else world
    prepared = rank_0_first(world, lambda: with_prepared_data(config, shown=shown))
    log = open_log(prepared, prepared.data, source)
    state = RunState()
    begun = begin(prepared, log, state, world, origin, shown=shown)
    served = to_serve(config, log, world)
    with RunDir.new(config) if run is None else nullcontext(run) as folder:
        batches = _epochs(begun.learner, folder, log, begun.fitted, state, shown=shown)
        return train_to_end(
            begun.learner, folder, batches, log, begun.fitted, state, shown=shown, on_error=on_error, to_serve=served
        )


def resume(
    run: RunDir,
    overrides: tuple[str, ...] = (),
    *,
    source: Source | None = None,
    world: World | None = None,
    shown: bool = True,
    on_error: OnError = say_what_is_waited_for,
) -> dict[str, Any]:
    """Goes on with a run from its last checkpoint; with overrides, under a changed configuration.

    Args:
        source: the rows, if they are in memory.
        world: the ranks that go on with it, any number of them; see `train`.
        on_error: see `train`.

    Raises:
        ConfigError: it is an online run.
        StateError: there is no checkpoint, or it belongs to another schema or to columns that are made of something
            else (what differs is named).
    """
    world = SingleRank() if world is None else world
    found = go_on(run, overrides, world, online=False, source=source, shown=shown)
    learner, log, state = found.learner, found.log, found.state
    if overrides:
        state.finished = False
        look(learner.config, log, state, world, shown=shown)
    return train_to_end(
        learner,
        run,
        _epochs(learner, run, log, found.fitted, state, shown=shown),
        log,
        found.fitted,
        state,
        shown=shown,
        on_error=on_error,
        resumed_from=found.chain,
        to_serve=to_serve(run.config(overrides), log, world),
    )


def train_to_end(
    learner: Learner,
    run: RunPlace,
    source: BatchSource,
    log: Log,
    fitted: FittedTransforms,
    state: RunState,
    *,
    shown: bool,
    on_error: OnError,
    resumed_from: Sequence[Manifest] = (),
    to_serve: ToServe | None = None,
) -> dict[str, Any]:
    """Trains what is left of a run, evaluates it, and returns its report, which the run's place keeps.

    Args:
        source: the batches.
        log: the log that parts are evaluated on.
        on_error: see `train`.
        resumed_from: the chain of the checkpoint that the learner holds.
        to_serve: what serving versions have besides what training changes; None: there are none.
    """
    world, config = learner.world, learner.config
    stop = StopRequest(run.stop_file if world.size > 1 and world.rank == 0 else None)
    figures = MetricsLog(run, state.step, writes=world.rank == 0)
    warnings = warnings_of(state, world, shown=shown)
    metrics = Metrics(figures, config.train.log_every_steps)
    progress = Progress(metrics, shown=shown)
    set_aside = SetAside(world, run, source, figures, rows=config.data.on_bad_row != "error")
    checkpoints = Checkpoints(learner, run, fitted, set_aside)
    stopping = StopWhenAsked(stop, checkpoints, run, world, shown=shown)
    listed = run.quarantine
    evaluation = Evaluation(learner, log, fitted, checkpoints, figures, warnings, quarantine_dir=listed, shown=shown)
    # In this order after each step: what is shown and counted is of the batch, and a stop goes before what may be due.
    hooks: list[Hook] = [FirstBatch(config, world, warnings), metrics, progress, set_aside, stopping, evaluation]
    hooks.append(checkpoints)
    with ExitStack() as stack:
        stack.enter_context(stop)
        versions = StateFolder(run.checkpoints)
        holder = stack.enter_context(LeaseHolder(versions)) if world.rank == 0 else versions
        stack.enter_context(checkpoints.open(holder, state, resumed_from, stop, on_error))
        if config.publish is not None and not run.keeps_every_version and shown:
            say("publish: a run in memory writes no versions for servers; give runs_dir")
        elif config.publish is not None and to_serve is not None and run.keeps_every_version:
            publishing = Publishing(learner, run, fitted, config.publish, to_serve, log, warnings)
            stack.enter_context(publishing.open(holder, state, resumed_from, stop))
            hooks.append(publishing)
        stack.enter_context(figures)
        stack.callback(progress.close)
        TrainLoop(learner, source, state, hooks, is_asked_to_stop=stop.is_asked).run()
        report = final_report(learner, run, source, state, evaluation.figures, warnings)
    if world.rank == 0:
        run.finish(report, learner.scorer(fitted), state.id_kinds)
    return report


def _epochs(
    learner: Learner, run: RunPlace, log: Log, fitted: FittedTransforms, state: RunState, *, shown: bool
) -> LogEpochs:
    return LogEpochs(
        log,
        fitted,
        learner.config.train,
        learner.world,
        needs=learner.needs,
        epoch_rows=state.epoch_rows,
        quarantine_dir=run.quarantine,
        record=FilesRecord(run.files_record, writes=learner.world.rank == 0),
        shown=shown,
    )

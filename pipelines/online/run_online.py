"""An online run: a flow of batches, judged before they are trained on; a version for servers after every interval.

    flow -> intervals (intervals.py) -> the loop of training, with these hooks between batches:
    figures before a step (prequential.py), checkpoints, versions for servers unless figures are off (drift.py)

What is learned, written and resumed is the same code as in `embtables train`; it differs in where batches come from and
in when versions are written. docs/online.md has the rules.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

from embtables.errors import ConfigError
from embtables.events import open_log as open_event_log
from embtables.events.dead_letters import DeadLetters
from embtables.events.protocol import EventLog
from embtables.inputs.features import FittedTransforms
from embtables.pipelines.config import Online, Publish, RunConfig
from embtables.pipelines.online.drift import DriftWatch
from embtables.pipelines.online.event_counts import EventCounts
from embtables.pipelines.online.event_flow import EventFlow
from embtables.pipelines.online.hand_over import hand_over
from embtables.pipelines.online.intervals import Intervals
from embtables.pipelines.online.join.joined_events import partitions_of
from embtables.pipelines.online.join.joiner import SetAside as SetAsideEvents
from embtables.pipelines.online.log_flow import LogFlow
from embtables.pipelines.online.patient_log import PatientLog
from embtables.pipelines.online.prequential import PART, Prequential
from embtables.pipelines.online.progress import OnlineProgress
from embtables.pipelines.prepare.log_splits import with_prepared_data
from embtables.pipelines.run_dir import RunDir
from embtables.pipelines.run_place import RunPlace
from embtables.pipelines.sources.epochs import LogEpochs
from embtables.pipelines.sources.files.record import FilesRecord
from embtables.pipelines.sources.log import Log
from embtables.pipelines.sources.open_log import open_log
from embtables.pipelines.training import checkpoint
from embtables.pipelines.training.begin import begin, go_on, to_serve, warnings_of
from embtables.pipelines.training.figures.evaluate import extra_columns
from embtables.pipelines.training.final_report import what_it_took
from embtables.pipelines.training.hooks.checkpoints import Checkpoints
from embtables.pipelines.training.hooks.hook import Hook
from embtables.pipelines.training.hooks.metrics import Metrics
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
from embtables.pipelines.warn import Warnings
from embtables.shard.world import SingleRank, World
from embtables.state.folder.version_folder import LeaseHolder, StateFolder
from embtables.state.format.manifest import Manifest

Kind = Literal["replay", "events"]
DEAD_LETTERS = "dead_letters"  # folder of a run, for events that gave no sample


def online(
    config: RunConfig,
    kind: Kind,
    *,
    former: RunDir | None = None,
    which: checkpoint.Which | None = None,
    fresh: Collection[str] = (),
    run: RunPlace | None = None,
    world: World | None = None,
    speed: float | None = None,
    drains: bool = False,
    shown: bool = True,
    on_error: OnError = say_what_is_waited_for,
) -> dict[str, Any]:
    """Trains online, and returns the report of the run.

    Args:
        kind: `replay`: the rows of a log in the order of its files; `events`: the samples of an event log.
        former, which, fresh, run, world, on_error: as `train`.
        speed: of a replay, seconds of event time for each second; None: as fast as can be.
        drains: of events, the run ends when all that the log has were read; else it waits for more.

    Raises:
        ConfigError: the configuration has no event time, or no event log.
        EventLogError: the event log cannot be opened or read.
        DataError, StateError: as `train`.
    """
    online = online_of(config, kind)
    world = SingleRank() if world is None else world
    origin = None if former is None else FormerCheckpoint(former, config, which, fresh)
    prepared = rank_0_first(world, lambda: with_prepared_data(config, shown=shown))
    log = open_log(prepared, prepared.data, None)
    state = RunState(kind=kind)
    new = begin(prepared, log, state, world, origin, shown=shown)
    served = _to_serve(config, log, world)
    reads_from = hand_over(config, state, origin, shown=shown) if kind == "events" else None
    with RunDir.new(config) if run is None else nullcontext(run) as place:
        begun = _Begun(new.learner, place, log, new.fitted, state, online, served, speed, drains, reads_from)
        return _run_to_end(begun, shown=shown, on_error=on_error)


def resume(
    run: RunDir,
    overrides: tuple[str, ...] = (),
    *,
    world: World | None = None,
    speed: float | None = None,
    drains: bool = False,
    shown: bool = True,
    on_error: OnError = say_what_is_waited_for,
) -> dict[str, Any]:
    """Goes on with an online run from its last checkpoint, on any number of ranks; see `online`.

    Raises:
        ConfigError: it is no online run.
        StateError: there is no checkpoint, or it is of another schema.
    """
    world = SingleRank() if world is None else world
    found = go_on(run, overrides, world, online=True, shown=shown)
    learner, log, state = found.learner, found.log, found.state
    online = online_of(learner.config, "replay" if state.kind == "replay" else "events")
    if state.kind == "events":
        state.finished = False  # its log may have more since it was drained
    served = _to_serve(run.config(overrides), log, world)
    reads_from = checkpoint.ReaderFiles(StateFolder(run.checkpoints), found.chain, state.reader_files)
    begun = _Begun(
        learner, run, log, found.fitted, state, online, served, speed, drains, reads_from, resumed_from=found.chain
    )
    return _run_to_end(begun, shown=shown, on_error=on_error)


def online_of(config: RunConfig, kind: Kind) -> Online:
    """The section `online`, or its defaults.

    Raises:
        ConfigError: there is no event time, by which intervals are cut, or no event log.
    """
    if config.event_time is None:
        raise ConfigError("an online run needs event_time, the column by which intervals are cut")
    found = config.online or Online()
    if kind == "events" and found.events is None:
        raise ConfigError("there is no event log: set online.events, or replay the log's files with --replay")
    return found


def _to_serve(config: RunConfig, log: Log, world: World) -> ToServe:
    """An online run always publishes: that is what it is for."""
    publishing = config if config.publish is not None else config.model_copy(update={"publish": Publish()})
    found = to_serve(publishing, log, world)
    assert found is not None, "it has a section publish"
    return found


@dataclass(frozen=True, slots=True)
class _Begun:
    """What a run has when its first batch, or its next one, is about to come.

    Attributes:
        reads_from: where the reader of events goes on; None: at the beginning of the log.
        resumed_from: the chain of the checkpoint that it goes on from; empty for a new run.
    """

    learner: Learner
    run: RunPlace
    log: Log
    fitted: FittedTransforms
    state: RunState
    online: Online
    served: ToServe
    speed: float | None
    drains: bool
    reads_from: checkpoint.ReaderFiles | None = None
    resumed_from: Sequence[Manifest] = ()

    @property
    def config(self) -> RunConfig:
        return self.learner.config

    def log_flow(self, is_asked_to_stop: Callable[[], bool]) -> LogFlow:
        """The rows of the log."""
        learner, config = self.learner, self.config
        epochs = LogEpochs(
            self.log,
            self.fitted,
            config.train.model_copy(update={"epochs": 1}),
            learner.world,
            needs=learner.needs,
            epoch_rows=None,
            quarantine_dir=self.run.quarantine,
            record=FilesRecord(self.run.files_record, writes=learner.world.rank == 0),
            part=self.online.part,
            in_order=True,
            extra_columns=self.extra_columns,
        )
        return LogFlow(epochs, self.speed, is_asked_to_stop, learner.world)

    def event_flow(self, log: EventLog, set_aside: SetAsideEvents, now: Callable[[], float]) -> EventFlow:
        """The samples of the event log."""
        events, world, reads_from = self.online.events, self.learner.world, self.reads_from
        assert events is not None, "a run on events has them"
        tables = None if reads_from is None else reads_from.tables(partitions_of(log, world))
        return EventFlow(
            log,
            events,
            self.config,
            self.fitted,
            needs=self.learner.needs,
            batch_rows=self.config.train.batch_size,
            world=world,
            is_replay=self.drains,
            set_aside=set_aside,
            tables=tables,
            extra_columns=self.extra_columns,
            begin_after_us=self.state.begin_after_us,
            now=now,
        )

    @property
    def extra_columns(self) -> tuple[str, ...]:
        """What figures read beside a batch."""
        return extra_columns(self.config, self.learner.task.figures(self.config.evaluate))


class _EachInterval(Hook):
    """A checkpoint after every so many intervals: before servers get what it holds."""

    def __init__(self, checkpoints: Checkpoints, every: int) -> None:
        self._checkpoints = checkpoints
        self._every = every

    def after_stretch(self, state: RunState, *, whole: bool) -> None:
        """See Hook."""
        if whole and state.stretch % self._every == 0:
            self._checkpoints.save(state)


def _run_to_end(begun: _Begun, *, shown: bool, on_error: OnError) -> dict[str, Any]:
    """Trains what is left, and returns the report, which the run's place keeps."""
    if isinstance(begun.run, RunDir):
        begun.run.goes_on_by = "online"
    world = begun.learner.world
    stop = StopRequest(begun.run.stop_file if world.size > 1 and world.rank == 0 else None)
    with ExitStack() as stack:
        flow = _opened(begun, stop, stack)
        return _loop(begun, flow, stop, shown=shown, on_error=on_error)


def _opened(begun: _Begun, stop: StopRequest, stack: ExitStack) -> LogFlow | EventFlow:
    """What the run trains on; what that opens is closed with the stack."""
    if begun.state.kind != "events":
        return begun.log_flow(stop.is_asked)
    assert begun.online.events is not None, "a run on events has them"
    world, uri = begun.learner.world, begun.online.events.log
    log: EventLog = rank_0_first(world, lambda: open_event_log(uri))
    stack.callback(log.close)
    now = time.monotonic
    if not begun.drains:
        log = patient = PatientLog(log, stop.is_asked)
        now = patient.now
    if begun.run.path is None:
        return begun.event_flow(log, lambda reason, events: None, now)
    letters = DeadLetters(begun.run.path / dead_letters_of(world.rank))
    stack.callback(letters.close)
    return begun.event_flow(log, lambda reason, events: letters.add(events, [reason] * events.num_rows), now)


def dead_letters_of(rank: int) -> str:
    """The folder of a run for the events that gave no sample at a rank."""
    return DEAD_LETTERS if rank == 0 else f"{DEAD_LETTERS}-{rank}"


def _publishing(begun: _Begun, watch: DriftWatch | None, warnings: Warnings) -> Publishing:
    """A version for servers after every interval, unless figures are off."""
    state = begun.state
    return Publishing(
        begun.learner,
        begun.run,
        begun.fitted,
        begun.config.publish or Publish(),
        begun.served,
        begun.log,
        warnings,
        each_stretch=True,
        may_publish=(lambda: True) if watch is None else (lambda: watch.may_publish(state.step)),
    )


def _loop(
    begun: _Begun, flow: LogFlow | EventFlow, stop: StopRequest, *, shown: bool, on_error: OnError
) -> dict[str, Any]:
    learner, run, state, online, config = begun.learner, begun.run, begun.state, begun.online, begun.config
    world, resumed_from = learner.world, begun.resumed_from
    figures = MetricsLog(run, state.step, writes=world.rank == 0)
    warnings = warnings_of(state, world, shown=shown)
    source = Intervals(flow, online, world)
    watch = None if online.drift is None else DriftWatch(online.drift, figures, shown=shown)
    # Live, nothing is known of an interval before it is over.
    ahead, seconds = isinstance(flow, LogFlow), online.report_seconds
    prequential = Prequential(learner, begun.fitted, figures, watch, ahead=ahead, report_seconds=seconds)
    progress = OnlineProgress(prequential, shown=shown)
    may_set_aside = isinstance(flow, EventFlow) or config.data.on_bad_row != "error"
    set_aside = SetAside(world, run, source, figures, rows=may_set_aside)
    if isinstance(flow, EventFlow):
        warnings.add(flow.warnings)
    tables = flow.tables if isinstance(flow, EventFlow) else dict
    checkpoints = Checkpoints(learner, run, begun.fitted, set_aside, tables)
    metrics = Metrics(figures, config.train.log_every_steps)
    stopping = StopWhenAsked(stop, checkpoints, run, world, shown=shown)
    # A checkpoint comes before what is published: after a crash servers are never ahead of what training goes on from.
    hooks: list[Hook] = [prequential, metrics, progress, set_aside, stopping]
    if isinstance(flow, EventFlow):
        hooks.append(EventCounts(flow, figures))
    hooks += [_EachInterval(checkpoints, online.checkpoint_every_syncs), checkpoints]
    with ExitStack() as stack:
        stack.enter_context(stop)
        versions = StateFolder(run.checkpoints)
        holder = stack.enter_context(LeaseHolder(versions)) if world.rank == 0 else versions
        stack.enter_context(checkpoints.open(holder, state, resumed_from, stop, on_error))
        if run.keeps_every_version:
            publishing = _publishing(begun, watch, warnings)
            stack.enter_context(publishing.open(holder, state, resumed_from, stop))
            hooks.append(publishing)
            if not resumed_from:
                # Servers follow this run from here on: after a kill it has to be one that can be resumed.
                checkpoints.save(state)
                checkpoints.wait()
                publishing.begin(state)
        stack.enter_context(figures)
        stack.callback(progress.close)
        stack.enter_context(_closing(source))
        TrainLoop(learner, source, state, hooks, is_asked_to_stop=stop.is_asked).run()
    took = what_it_took(learner, run, source, state, warnings)
    took["intervals"] = took.pop("epochs")
    judged = prequential.report()
    judged["evaluated_rows"] = judged.pop("rows")
    if isinstance(flow, EventFlow):
        judged["events"] = dict(flow.counts)
    report = {**judged, "part": PART, **took}
    if world.rank == 0:
        run.finish(report, learner.scorer(begun.fitted), state.id_kinds)
    return report


@contextmanager
def _closing(source: Intervals) -> Iterator[None]:
    try:
        yield
    finally:
        source.close()

"""What a run begins or goes on with: a look at the log, a learner, what servers need besides what training changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from embtables.errors import ConfigError
from embtables.ids import Artifacts
from embtables.inputs.features import FittedTransforms
from embtables.pipelines.config import RunConfig
from embtables.pipelines.prepare.log_splits import with_prepared_data
from embtables.pipelines.prepare.side_tables import candidate_key, published_side_tables
from embtables.pipelines.progress import say
from embtables.pipelines.run_dir import RunDir
from embtables.pipelines.sources.files.source import Source
from embtables.pipelines.sources.log import Log
from embtables.pipelines.sources.open_log import open_log
from embtables.pipelines.training import checkpoint
from embtables.pipelines.training.hooks.publishing import ToServe
from embtables.pipelines.training.learner import Learner
from embtables.pipelines.training.rank_agreement import need_same, rank_0_first
from embtables.pipelines.training.run_content import RunState, run_content
from embtables.pipelines.training.start.check_log import check_log
from embtables.pipelines.training.start.check_types import other_ids
from embtables.pipelines.training.start.continue_from import FormerCheckpoint
from embtables.pipelines.training.start.saved_config import refuse_other_columns, refuse_other_schema
from embtables.pipelines.training.start.shared_values import first_rows, shared_values
from embtables.pipelines.training.start.warm_start import warm
from embtables.pipelines.warn import Warnings
from embtables.shard.world import World
from embtables.state.format.manifest import Manifest
from embtables.state.read.version_reader import shares_keys


@dataclass(frozen=True, slots=True)
class Begun:
    """What a new run begins with: a learner that holds what it starts from, transforms, and its state."""

    learner: Learner
    fitted: FittedTransforms
    state: RunState


def begin(
    config: RunConfig, log: Log, state: RunState, world: World, origin: FormerCheckpoint | None, *, shown: bool
) -> Begun:
    """A new run on a log that was opened.

    Args:
        config: with its data prepared.
        state: nothing is done yet; is changed in place.
        origin: the former checkpoint that it begins with.

    Raises:
        DataError, StateError: see `look`, `warm` and FormerCheckpoint.
    """
    look(config, log, state, world, shown=shown)
    learner = new_learner(config, world)
    if origin is not None:
        origin.load(learner)
    started = [warm(learner.tables, section, shown=shown) for section in config.warm_start]
    state.started_from = {"warm_start": started} if started else {}
    fitted = log.fit_transforms(config.train.seed)
    if origin is not None:
        fitted = origin.transforms(fitted)
        state.started_from["from"] = origin.report(shown=shown)
    return Begun(learner, fitted, state)


@dataclass(frozen=True, slots=True)
class GoneOn:
    """What a run has that goes on from its last checkpoint, which ends the chain."""

    learner: Learner
    log: Log
    fitted: FittedTransforms
    state: RunState
    chain: Sequence[Manifest]


def go_on(
    run: RunDir, overrides: tuple[str, ...], world: World, *, online: bool, source: Source | None = None, shown: bool
) -> GoneOn:
    """A run from its last checkpoint; with overrides, under a changed configuration.

    Args:
        world: any number of ranks, whatever it was before.
        online: whether it has to be an online run.
        source: the rows of its log, if they are in memory.

    Raises:
        ConfigError: it is a run of the other command.
        StateError: there is no checkpoint, or it belongs to another schema or to columns that are made of something
            else (what differs is named).
    """
    refuse_other_columns(run.config(), run.config(overrides))
    config = rank_0_first(world, lambda: with_prepared_data(run.config(overrides), shown=shown))
    chain = checkpoint.find_on_all_ranks(world, run.checkpoints, "last")
    content = run_content(chain[-1])
    if online is not (content.state.kind != "train"):
        command = "train" if online else "online"
        what = "no online run" if online else "an online run"
        raise ConfigError(f"it is {what}; go on with: embtables {command} --resume {run.path}", folder=run.path)
    refuse_other_schema(config, content)
    log = open_log(config, config.data, source)
    artifacts = checkpoint.artifacts(run.checkpoints, chain)
    learner = new_learner(config, world, artifacts, shares_keys=shares_keys(chain[0]))
    checkpoint.load(run.checkpoints, chain, learner)
    if shown:
        say(f"going on from {chain[-1].name}, step {content.state.step}")
    return GoneOn(learner, log, content.fitted, content.state, chain)


def new_learner(
    config: RunConfig, world: World, artifacts: Mapping[str, Artifacts] | None = None, *, shares_keys: bool = True
) -> Learner:
    """A learner, on the threads that the configuration names. Arguments: see Learner."""
    if config.train.threads is not None:
        torch.set_num_threads(config.train.threads)
    return Learner(config, world, artifacts, shares_keys=shares_keys)


def to_serve(config: RunConfig, log: Log, world: World) -> ToServe | None:
    """What a run publishes besides what training changes; None if it publishes nothing.

    Args:
        config: the run's, before its data is prepared.
    """
    if config.publish is None:
        return None
    key = candidate_key(config)  # what is wrong with it is wrong at all ranks
    return ToServe(() if world.rank else published_side_tables(config, log), key)


def warnings_of(state: RunState, world: World, *, shown: bool) -> Warnings:
    """What rank 0 says, and the run's state keeps."""
    return Warnings(state.warnings, shown=shown and world.rank == 0)


def look(config: RunConfig, log: Log, state: RunState, world: World, *, shown: bool) -> None:
    """Looks at the log before training; notes rows of an epoch and steps of the whole run.

    They are counted once so that schedules are a pure function of the step.
    """
    train = config.train
    found = check_log(config, log)
    rows = found.parts["train"].rows
    counts = {part: count.rows for part, count in found.parts.items()}
    need_same(world, "the ranks' logs", {"rows": log.num_rows, "parts": counts, "bad files": len(log.bad_files)})
    shared = shared_values(config, first_rows(config, log))
    other = other_ids(state.id_kinds, found.kinds, config)
    warnings_of(state, world, shown=shown).add((*found.warnings, *shared, *other))
    steps = -(-rows // train.batch_size) * train.epochs
    state.epoch_rows = rows
    state.total_steps = steps if train.max_steps is None else min(steps, train.max_steps)
    state.id_kinds = {**found.kinds, **state.id_kinds}

"""`--from`: a new run that begins with what a former one has learned, under a configuration that may differ."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from embtables.errors import ConfigError, StateError
from embtables.ids import Artifacts
from embtables.inputs.features import FittedTransforms
from embtables.models.build import features_of, tables_of
from embtables.pipelines.config import RunConfig
from embtables.pipelines.prepare.log_splits import with_absolute_joins
from embtables.pipelines.progress import say
from embtables.pipelines.run_dir import RunDir
from embtables.pipelines.training import checkpoint
from embtables.pipelines.training.learner import Learner
from embtables.pipelines.training.run_content import RunState, run_content
from embtables.pipelines.training.start.column_origins import notes_of_features, other_origins
from embtables.pipelines.training.start.dense_evolution import take_dense, take_transforms
from embtables.pipelines.training.start.saved_config import refuse_other_schema
from embtables.rows.content import TableContent, restrict, with_keys_of
from embtables.schema import CollisionlessTable
from embtables.schema.schema import LINEAR_PREFIX
from embtables.state.evolve.evolution import Evolution, Note, StateSchema
from embtables.state.folder.version_folder import StateFolder
from embtables.state.read.find import find
from embtables.state.read.version_reader import shares_keys
from embtables.tables.shared_keys import stored_tables


class FormerCheckpoint:
    """A checkpoint of a former run, for a new one to begin with.

    Args:
        which: by default the best checkpoint if there is one, else the last.
        fresh: tables of the new configuration that begin afresh, with their first-order weights.

    Raises:
        ConfigError: the folder is not that of a run, or `fresh` names a table that does not exist.
        StateError: there is no such checkpoint, or no rule converts what differs; all of that is named.
    """

    def __init__(
        self, run: RunDir, config: RunConfig, which: checkpoint.Which | None = None, fresh: Collection[str] = ()
    ) -> None:
        self._run = run
        self._was = with_absolute_joins(run.config())
        self._now = config
        self._chain = find(run.checkpoints, which)
        self._content = run_content(self._chain[-1])
        refuse_other_schema(self._was, self._content)
        self._artifacts = checkpoint.artifacts(run.checkpoints, self._chain)
        was = _schema(self._was, self._artifacts, shares_keys=shares_keys(self._chain[0]))
        now = _schema(config, {})
        self._tables_then, self._tables_now = ({t.config.name: t for t in s.tables} for s in (was, now))
        try:
            self._plan = Evolution(was, now, _with_linear(config, fresh))
        except StateError as error:
            raise StateError(error.message, run=run.path) from error
        self._other_origins = other_origins(self._was, config)
        self.notes: list[Note] = [
            *self._plan.notes,
            *notes_of_features(self._was, config, self._other_origins),
            *self._clocks(),
        ]

    @property
    def state(self) -> RunState:
        """Where the former run stood."""
        return self._content.state

    @property
    def config(self) -> RunConfig:
        """Of the former run."""
        return self._was

    @property
    def reader_files(self) -> checkpoint.ReaderFiles:
        """What the former run's readers of events go on from besides their position."""
        return checkpoint.ReaderFiles(StateFolder(self._run.checkpoints), self._chain, self.state.reader_files)

    def _clocks(self) -> list[Note]:
        """Ages are differences of event times, those of the version and those to come."""
        then, here = self._was.event_time, self._now.event_time
        ages = [
            {t.name for t in config.tables if isinstance(t, CollisionlessTable) and t.ttl_seconds is not None}
            for config in (self._was, self._now)
        ]
        if then == here or not ages[0] & ages[1] & self._plan.kept.keys():
            return []
        ours, theirs = ("none" if time is None else time.column for time in (here, then))
        return [Note("event_time", f"is {ours} now, {theirs} before: ages go on, its times must follow those before")]

    def load(self, learner: Learner) -> None:
        """Puts what goes on into a new learner: rows with their optimizer state, dense weights with theirs.

        With several ranks, each reads what it owns; if a table's seed differs, it reads all, since it then owned other
        keys.

        Raises:
            StateError: a file of the checkpoint is missing or damaged.
        """
        # The former run's random state is not taken over: the new run has its own seed.
        with torch.random.fork_rng(devices=[]):
            then, now = self._tables_then, self._tables_now
            owned_alike = all(then[table].seed == now[table].seed for table in self._plan.kept)
            world, shares = learner.world if owned_alike else None, shares_keys(self._chain[0])
            old = Learner(self._was, world, self._artifacts, shares_keys=shares)
            checkpoint.load(self._run.checkpoints, self._chain, old)
        taken: dict[str, TableContent] = {}
        for table, conversion in self._plan.kept.items():
            content = self._plan.content(table, old.tables.table_content(table))
            if learner.world.size > 1 and not owned_alike:
                content = restrict(content, now[table].seed, learner.world.buckets())
            if conversion.counts_anew:
                content.sketch = learner.tables.table_content(table).sketch
            leader = taken.get(now[table].keys_of or "")
            if leader is not None and then[table].keys_of is None:
                content = with_keys_of(leader, content)
            learner.tables.take_over(table, content)
            taken[table] = content
        self.notes += take_dense(old, learner, self._other_origins)

    def transforms(self, fitted: FittedTransforms) -> FittedTransforms:
        """What was fitted for the former run where it still holds, else what was fitted on the new log."""
        merged, notes = take_transforms(self._was, self._now, self._content.fitted, fitted, self._other_origins)
        self.notes += notes
        return merged

    def report(self, *, shown: bool) -> dict[str, Any]:
        """Says every rule that was applied; returns them for the report."""
        version = self._chain[-1]
        if shown:
            say(f"from {self._run.path}, {version.name} of step {self._content.state.step}:")
            for line in [str(note) for note in self.notes] or ["nothing differs: everything goes on"]:
                say(f"  {line}")
        return {
            "run": str(Path(self._run.path).absolute()),
            "version": version.name,
            "rules": [asdict(note) for note in self.notes],
        }


def _schema(config: RunConfig, artifacts: Mapping[str, Artifacts], *, shares_keys: bool = True) -> StateSchema:
    tables, features = tables_of(config, config.model), features_of(config, config.model)
    return StateSchema(stored_tables(tables, features, config.train.seed, shares_keys=shares_keys), features, artifacts)


def _with_linear(config: RunConfig, fresh: Collection[str]) -> list[str]:
    names = {table.name for table in tables_of(config, config.model)}
    found = []
    for name in fresh:
        both = [n for n in (name, LINEAR_PREFIX + name) if n in names]
        if not both:
            known = ", ".join(sorted(names))
            raise ConfigError(f"--fresh: there is no table '{name}'; there are: {known}")
        found += both
    return found

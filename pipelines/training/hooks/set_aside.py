"""Rows and files of a run that were set aside, counted so that a run that is resumed reports all of them."""

from __future__ import annotations

from embtables.pipelines.progress import say
from embtables.pipelines.run_place import RunPlace
from embtables.pipelines.sources.protocol import BatchSource, Stretch
from embtables.pipelines.training.figures.evaluate import no_rows
from embtables.pipelines.training.hooks.hook import Hook
from embtables.pipelines.training.metrics_log import MetricsLog
from embtables.pipelines.training.rank_agreement import summed
from embtables.pipelines.training.run_content import RunState
from embtables.shard.world import World


class SetAside(Hook):
    """Adds what a source sets aside to the state of the run, in time for every version, and reports it by stretch.

    Args:
        rows: whether rows may be set aside; else only files are.
    """

    def __init__(self, world: World, run: RunPlace, source: BatchSource, log: MetricsLog, *, rows: bool) -> None:
        self._world = world
        self._run = run
        self._source = source
        self._log = log
        self._rows = rows
        self._stretch: Stretch | None = None
        self._number = 0
        self._counted: dict[str, int] = {}

    def before_stretch(self, state: RunState, stretch: Stretch) -> None:
        """See Hook."""
        self._stretch, self._number, self._counted = stretch, state.stretch, {}

    def count(self, state: RunState) -> None:
        """Adds what came since the last time; called by all ranks together."""
        if self._stretch is None:
            return
        state.quarantined_files.update(self._source.bad_files)
        if not self._rows:
            return
        counts = summed(self._world, self._stretch.quarantined)
        for cause, rows in counts.items():
            more = rows - self._counted.get(cause, 0)
            if more:
                state.quarantined[cause] = state.quarantined.get(cause, 0) + more
                state.quarantined_rows += more
        self._counted = counts

    def after_stretch(self, state: RunState, *, whole: bool) -> None:
        """See Hook: what was set aside in this epoch is written down and said, so that nothing is lost in silence."""
        self.count(state)
        self._report(state)
        if whole and state.rows == 0 and state.quarantined:
            raise no_rows("train", state.quarantined)
        if whole:
            state.quarantined = {}

    def _report(self, state: RunState) -> None:
        rows, files = state.quarantined, state.quarantined_files
        found = {**rows, **{f"file {path}": reason for path, reason in files.items()}}
        if not found or self._world.rank:
            return
        self._log.append([{"step": state.step, "epoch": self._number, "quarantined": found}])
        see = "the run's history" if self._run.path is None else self._run.path
        say(f"set aside in this epoch: {sum(rows.values()):,} bad rows, {len(files)} bad files; see {see}")

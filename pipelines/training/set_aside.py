"""Rows and files of a run that were set aside, counted so that a run that is resumed reports all of them."""

from __future__ import annotations

from embtables.pipelines.sources.protocol import BatchSource, Stretch
from embtables.pipelines.training.rank_agreement import summed
from embtables.pipelines.training.run_content import RunState
from embtables.shard.world import World


class SetAside:
    """Adds what a source sets aside to the state of the run, in time for every version.

    Args:
        stretch: the rest of the present one.
        rows: whether rows may be set aside; else only files are.
    """

    def __init__(self, world: World, state: RunState, source: BatchSource, stretch: Stretch, *, rows: bool) -> None:
        self._world = world
        self._state = state
        self._source = source
        self._stretch = stretch
        self._rows = rows
        self._counted: dict[str, int] = {}

    def count(self) -> None:
        """Adds what came since the last time; called by all ranks together."""
        self._state.quarantined_files.update(self._source.bad_files)
        if not self._rows:
            return
        counts = summed(self._world, self._stretch.quarantined)
        for cause, rows in counts.items():
            more = rows - self._counted.get(cause, 0)
            self._state.quarantined[cause] = self._state.quarantined.get(cause, 0) + more
            self._state.quarantined_rows += more
        self._counted = counts

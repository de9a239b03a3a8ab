"""Rows and files of a run that were set aside, counted so that a run that is resumed reports all of them."""

from __future__ import annotations

from embtables.pipelines.sources.log import Log
from embtables.pipelines.sources.quarantine import Quarantine
from embtables.pipelines.training.rank_agreement import summed
from embtables.pipelines.training.run_content import RunState
from embtables.shard.world import World


class SetAside:
    """Adds what a reader sets aside to the state of the run, in time for every version.

    Args:
        quarantine: of the reader of the rest of this epoch.
    """

    def __init__(self, world: World, log: Log, state: RunState, quarantine: Quarantine) -> None:
        self._world = world
        self._log = log
        self._state = state
        self._quarantine = quarantine
        self._counted: dict[str, int] = {}

    def count(self) -> None:
        """Adds what came since the last time; called by all ranks together."""
        self._state.quarantined_files.update(self._log.bad_files)
        if self._log.data.on_bad_row == "error":
            return
        counts = summed(self._world, self._quarantine.counts)
        for cause, rows in counts.items():
            more = rows - self._counted.get(cause, 0)
            self._state.quarantined[cause] = self._state.quarantined.get(cause, 0) + more
            self._state.quarantined_rows += more
        self._counted = counts

"""What the tables of a run have done since it began (rows admitted, expired, evicted, ...), over stops and resumptions.

Tables count from when they were made, or last restored; a version records the counts of the run up to it.
"""

from __future__ import annotations

from embtables.pipelines.training.run_content import RunState
from embtables.tables import Tables

_OF_NOW = "waiting"  # how many there are, not how many there have been


class TableCounts:
    """Adds what tables do from here on to the state of the run.

    Args:
        tables: as training goes on with them.
        state: with the counts up to here.
    """

    def __init__(self, tables: Tables, state: RunState) -> None:
        self._tables = tables
        self._state = state
        here = self._counts()
        self._before = {
            table: {name: state.table_counts.get(table, {}).get(name, 0) - count for name, count in counts.items()}
            for table, counts in here.items()
        }

    def record(self) -> None:
        """Puts the run's counts up to now into the state; called by all ranks together."""
        self._state.table_counts = {
            table: {name: self._before[table][name] + count for name, count in counts.items()}
            for table, counts in self._counts().items()
        }

    def _counts(self) -> dict[str, dict[str, int]]:
        found = self._tables.stats()
        return {table: {n: c for n, c in stats.counts.items() if n != _OF_NOW} for table, stats in found.items()}

"""Two runs beside each other, bit for bit."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from embtables.errors import EmbtablesError
from embtables.pipelines.trained.run import Run
from tests.fuzz.trials.case import WrongRowsError

# What of a report depends on the clock, on the place, or on how rows are grouped in files.
_OF_THE_RUN = ("run_dir", "warnings", "sources", "seconds", "rows_per_second", "wall_seconds")


def figures(run: Run) -> dict[str, Any]:
    """The figures of a run's report that must not depend on how its rows were given."""
    return {name: value for name, value in run.metrics.items() if name not in _OF_THE_RUN}


def rows_of(run: Run) -> pa.Table:
    """The rows of table `t` by key."""
    return run.table("t").to_arrow().select(["key", "weight"]).sort_by("key")


def need_same(what: str, one: Run | EmbtablesError, other: Run | EmbtablesError) -> None:
    """Raises WrongRowsError unless both have the same rows and figures, or both were refused."""
    if isinstance(one, EmbtablesError) or isinstance(other, EmbtablesError):
        if not (isinstance(one, EmbtablesError) and isinstance(other, EmbtablesError)):
            refused, trained = (one, other) if isinstance(one, EmbtablesError) else (other, one)
            raise WrongRowsError(f"{what}: one is trained ({type(trained).__name__}), the other not: {refused}")
        return
    if not rows_of(one).equals(rows_of(other)):
        raise WrongRowsError(f"{what}: the rows of the tables differ")
    if repr(figures(one)) != repr(figures(other)):
        raise WrongRowsError(f"{what}: {figures(one)} and {figures(other)}")

"""Scores of rows in memory: the frame that was given, of its own kind, with a column for each label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from embtables.errors import ConfigError, DataError
from embtables.frames.table import Frame, as_table, is_pandas
from embtables.pipelines.progress import RowProgress
from embtables.pipelines.sources.memory import MEMORY, MemorySource
from embtables.pipelines.sources.open_log import open_log
from embtables.pipelines.trained.load_run import LoadedRun
from embtables.pipelines.trained.predict import OnBadRow, check_names, score_names_of, scored_rows, unfiltered
from embtables.pipelines.warn import Warnings


def score_frame(
    loaded: LoadedRun,
    data: Frame,
    *,
    columns: Sequence[str] | None = None,
    on_bad_row: OnBadRow = "error",
    shown: bool = True,
) -> Frame:
    """The rows with their scores, in the same order: a pandas or polars frame for one, else an Arrow table.

    Args:
        columns: columns to carry over; by default all of them. A pandas frame keeps its index.
        on_bad_row: a row whose value has no meaning is an error, or has null for its scores (in pandas NaN).

    Raises:
        ConfigError: the input has a column with the name of the scores, or lacks one of `columns`.
        DataError: a column of a feature or a dense column is missing, or has values without meaning.
        TrainingError: a score is not finite.
    """
    table = as_table(data)
    carried = list(table.column_names if columns is None else columns)
    check_names(carried, score_names_of(loaded.config))
    for name in carried:
        if name not in table.column_names:
            raise ConfigError(f"the input has no column '{name}'; it has: {', '.join(table.column_names)}")
    if not table.num_rows:
        raise DataError("holds no rows to score", table="data")
    return _with_columns(data, table, carried, _scores(loaded, table, on_bad_row, shown=shown))


def _scores(loaded: LoadedRun, table: pa.Table, on_bad_row: OnBadRow, *, shown: bool) -> dict[str, pa.ChunkedArray]:
    """The columns of scores (rows,); null of a row without any."""
    log = open_log(loaded.config, unfiltered(loaded.config.data, MEMORY), MemorySource({None: table}))
    warnings = Warnings([], shown=shown)
    warnings.add(loaded.warnings_of(log))
    found: dict[str, list[pa.Array]] = {name: [] for name in score_names_of(loaded.config)}
    with RowProgress("predict", log.num_rows, shown=shown) as progress:
        for rows in scored_rows(loaded, log, on_bad_row, warnings):
            for name, scores in rows.scores.items():
                found[name].append(scores)
            progress.advance(len(rows))
    return {name: pa.chunked_array(arrays, pa.float32()) for name, arrays in found.items()}


def _with_columns(data: Any, table: pa.Table, carried: list[str], added: dict[str, pa.ChunkedArray]) -> Frame:
    if is_pandas(data):
        return data[carried].assign(**{name: values.to_numpy() for name, values in added.items()})
    table = table.select(carried)
    for name, values in added.items():
        table = table.append_column(name, values)
    if type(data).__module__.split(".")[0] == "polars":
        return type(data)(table)
    return table

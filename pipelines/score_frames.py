"""Scores of rows in memory: the frame that was given, of its own kind, with a column for each label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embtables.errors import ConfigError, DataError
from embtables.frames.table import Frame, as_table, is_pandas
from embtables.models.scorer import Scorer
from embtables.pipelines.config import RunConfig
from embtables.pipelines.predict import score_names, unfiltered
from embtables.pipelines.progress import RowProgress
from embtables.pipelines.sources.memory import MEMORY, MemorySource
from embtables.pipelines.sources.open_log import open_log
from embtables.pipelines.sources.parquet import ParquetReader


def score_frame(
    config: RunConfig, scorer: Scorer, data: Frame, *, columns: Sequence[str] | None = None, shown: bool = True
) -> Frame:
    """The rows with their scores, in the same order: a pandas or polars frame for one, else an Arrow table.

    Args:
        columns: columns to carry over; by default all of them. A pandas frame keeps its index.

    Raises:
        ConfigError: the input has a column with the name of the scores, or lacks one of `columns`.
        DataError: a column of a feature or a dense column is missing, or has values without meaning.
    """
    table = as_table(data)
    carried = list(table.column_names if columns is None else columns)
    names = score_names(config)
    for name in names:
        if name in carried:
            raise ConfigError(f"the input has a column '{name}' already; choose the carried ones with columns=")
    for name in carried:
        if name not in table.column_names:
            raise ConfigError(f"the input has no column '{name}'; it has: {', '.join(table.column_names)}")
    if not table.num_rows:
        raise DataError("holds no rows to score", table="data")
    scores = _scores(config, scorer, table, shown=shown)
    added = {name: scores[:, place] for place, name in enumerate(names)}
    return _with_columns(data, table, carried, added)


def _scores(config: RunConfig, scorer: Scorer, table: pa.Table, *, shown: bool) -> npt.NDArray[np.float32]:
    """(rows, labels)"""
    log = open_log(config, unfiltered(config.data, MEMORY), MemorySource({None: table}))
    reader = ParquetReader(log, None, batch_size=config.evaluate.batch_size, fitted=scorer.fitted, role="scoring")
    found: list[npt.NDArray[np.float32]] = []
    with RowProgress("predict", reader.total_rows_hint, shown=shown) as progress:
        for item in reader:
            found.append(scorer.score(item.batch).numpy())
            progress.advance(len(found[-1]))
    return np.concatenate(found)


def _with_columns(data: Any, table: pa.Table, carried: list[str], added: dict[str, npt.NDArray[np.float32]]) -> Frame:
    if is_pandas(data):
        return data[carried].assign(**added)
    table = table.select(carried)
    for name, values in added.items():
        table = table.append_column(name, pa.array(values))
    if type(data).__module__.split(".")[0] == "polars":
        return type(data)(table)
    return table

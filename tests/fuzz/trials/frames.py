"""The Python call on rows in memory beside the same rows written by their own library: the same bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from embtables.errors import EmbtablesError
from embtables.pipelines.call import runs
from embtables.pipelines.trained.run import Run
from tests.fuzz.drawn.writers import silence
from tests.fuzz.trials.case import Case, Verdict
from tests.fuzz.trials.runs import need_same


def frames(case: Case) -> Verdict:
    """Takes one file's rows as the log."""
    path = max((case.folder / "log").rglob("*.parquet"), key=lambda file: (file.stat().st_size, file.name))
    table = pq.ParquetFile(path, coerce_int96_timestamp_unit="us").read()
    name = str(case.rng.choice(list(_KINDS)))
    folder = case.folder / "frame"
    folder.mkdir()
    try:
        with silence():
            frame = _KINDS[name](table, folder)
    except BaseException as error:  # what another library cannot hold is no fault of ours; polars panics
        if isinstance(error, KeyboardInterrupt):
            raise
        return Verdict("trained")
    content = _content(case)
    in_files = _run(content, str(folder / "log.parquet"))
    in_memory = _run(content, frame)
    need_same(f"{name} and its file", in_memory, in_files)
    if isinstance(in_memory, EmbtablesError):
        return Verdict("refused", str(in_memory))
    return Verdict("trained")


def _content(case: Case) -> dict[str, Any]:
    """The configuration with absolute side tables, in one part, in the order of the rows."""
    data = {name: value for name, value in case.data.items() if name not in ("path", "parts", "shuffle", "partitions")}
    if "join" in data:
        base = case.folder / case.data.get("path", ".")
        data["join"] = [{**join, "path": str((base / join["path"]).resolve())} for join in data["join"]]
    sections = {name: value for name, value in case.config.items() if name != "writers"}
    return {**sections, "data": {**data, "path": "log"}}


def _run(content: dict[str, Any], rows: Any) -> Run | EmbtablesError:
    try:
        return runs.train(content, rows, shown=False)
    except EmbtablesError as error:
        return error


def _pandas(table: pa.Table, folder: Path) -> Any:
    frame = table.to_pandas()
    frame.to_parquet(folder / "log.parquet")
    return frame


def _arrow_pandas(table: pa.Table, folder: Path) -> Any:
    frame = table.to_pandas(types_mapper=pd.ArrowDtype)
    frame.to_parquet(folder / "log.parquet")
    return frame


def _polars(table: pa.Table, folder: Path) -> Any:
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    frame.write_parquet(folder / "log.parquet")
    return frame


def _arrow(table: pa.Table, folder: Path) -> Any:
    pq.write_table(table, folder / "log.parquet")
    return table


def _dataset(table: pa.Table, folder: Path) -> Any:
    pq.write_table(table, folder / "log.parquet")
    return ds.dataset(folder / "log.parquet")


def _chunks(table: pa.Table, folder: Path) -> Any:
    """A slice of a table of several chunks: offsets that are not 0."""
    pq.write_table(table, folder / "log.parquet")
    half = table.num_rows // 2
    parts = [pa.concat_tables([table, table]).combine_chunks().slice(table.num_rows, table.num_rows)]
    return pa.concat_tables([part for whole in parts for part in (whole.slice(0, half), whole.slice(half))])


def _lists(table: pa.Table, folder: Path) -> Any:
    """A dictionary of Python values; Arrow says what they are."""
    columns = {name: table.column(name).to_pylist() for name in table.column_names}
    pq.write_table(pa.table(columns), folder / "log.parquet")
    return columns


_KINDS: dict[str, Callable[[pa.Table, Path], Any]] = {
    "pandas": _pandas,
    "pandas of Arrow": _arrow_pandas,
    "polars": _polars,
    "arrow": _arrow,
    "dataset": _dataset,
    "chunks": _chunks,
    "dictionary": _lists,
}

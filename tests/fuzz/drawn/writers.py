"""Parquet files by five writers, each where it can write the table; the rest pyarrow writes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import fastparquet
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

Rng = np.random.Generator


def _pyarrow(table: pa.Table, path: Path, rng: Rng) -> None:
    pq.write_table(
        table,
        path,
        row_group_size=int(rng.choice([1, 3, 7, 50, 1000])),
        use_dictionary=bool(rng.integers(2)),
        compression=str(rng.choice(["snappy", "zstd", "none", "gzip"])),
        data_page_version=str(rng.choice(["1.0", "2.0"])),
        use_deprecated_int96_timestamps=bool(rng.random() < 0.15),
        store_schema=bool(rng.random() < 0.8),
    )


def _polars(table: pa.Table, path: Path, rng: Rng) -> None:
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    frame.write_parquet(path, row_group_size=int(rng.choice([5, 1000])))


def _duckdb(table: pa.Table, path: Path, rng: Rng) -> None:
    with duckdb.connect() as connection:
        connection.execute("set threads = 1")
        connection.register("log", table)
        connection.execute(f"copy log to '{path}' (format parquet)")


def _pandas(table: pa.Table, path: Path, rng: Rng) -> None:
    table.to_pandas().to_parquet(path)


def _fastparquet(table: pa.Table, path: Path, rng: Rng) -> None:
    fastparquet.write(str(path), table.to_pandas(), row_group_offsets=int(rng.choice([5, 1000])))


WRITERS: dict[str, Callable[[pa.Table, Path, Rng], None]] = {
    "pyarrow": _pyarrow,
    "polars": _polars,
    "duckdb": _duckdb,
    "pandas": _pandas,
    "fastparquet": _fastparquet,
}


@contextmanager
def silence() -> Iterator[None]:
    """No stderr: polars writes a stack there when it panics."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def write(table: pa.Table, path: Path, rng: Rng) -> str | None:
    """Writes the table by a random writer, or by pyarrow where that one cannot; its name, or None if neither can."""
    path.parent.mkdir(parents=True, exist_ok=True)
    chosen = str(rng.choice(["pyarrow", "pyarrow", "polars", "duckdb", "pandas", "fastparquet"]))
    for name in dict.fromkeys([chosen, "pyarrow"]):
        try:
            with silence():
                WRITERS[name](table, path, rng)
            if pq.ParquetFile(path).read().num_rows == table.num_rows:
                return name
        except BaseException as error:  # what another writer cannot write is no fault of ours; polars panics
            if isinstance(error, KeyboardInterrupt):
                raise
        path.unlink(missing_ok=True)
    return None

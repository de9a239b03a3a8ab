"""Rows from a parquet file with an id column and a vector column, read in chunks of bounded size."""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from pyarrow import fs

from embtables.arrow.types import is_list
from embtables.errors import BadFileError, ConfigError, DataError
from embtables.inputs.columns import plain_ids
from embtables.inputs.values import BadRowsError, Int64s, one_array
from embtables.pickles import refuse_pickle
from embtables.tables.table_set import Tables
from embtables.warm_start.report import OnRows, RowSetter, Warmed

_VALUES_PER_CHUNK = 1 << 22


def from_parquet(
    tables: Tables,
    table: str,
    path: str | PathLike[str],
    *,
    id_column: str,
    vector_column: str,
    feature: str | None = None,
    on_rows: OnRows | None = None,
) -> Warmed:
    """Sets the rows of a table to the vectors of a file, as `Tables.set` does: ids without a row get one at once.

    Args:
        path: a parquet file, or its URI.
        id_column: raw ids as in a log: integers (uint64 too), strings, hashed as in training, or timestamps. For
            a feature made of a cross, of buckets or of parts of a time, the id that it makes, as an integer.
        vector_column: lists of D float16, float32 or float64. If an id comes twice, its last vector is used.
        feature: whose encoder turns ids into keys, if the table's features have different encoders.
        on_rows: called with the number of rows of every chunk that was set.

    Raises:
        ConfigError: no such table or feature, encoders that differ, or an encoder with several rows per id.
        DataError: a column is missing or has another type; a null, a vector of another length, a number that is not
            finite; names file, column and row. Rows before it have been set.
        BadFileError: the file cannot be read.
    """
    path = str(path) if isinstance(path, PathLike) else path
    if not isinstance(path, str) or not isinstance(tables, Tables):
        received = f"{type(tables).__name__} and {type(path).__name__}"
        raise ConfigError(f"give Tables and the path of a parquet file, received {received}")
    refuse_pickle(path)
    number, _ = tables.keys_of(table, torch.empty(0, dtype=torch.int64), feature)
    setter = RowSetter(tables, number)
    for rows in _chunks(path, id_column, vector_column, setter.config.dim):
        ids = rows.ids(id_column)
        vectors = rows.vectors(vector_column, setter.config.dim)
        try:
            _, keys = tables.keys_of(table, torch.from_numpy(ids), feature)
        except DataError as error:
            raise DataError(str(error), file=path, row_group=rows.group, column=id_column) from error
        setter.set(keys, torch.from_numpy(vectors))
        if on_rows is not None:
            on_rows(len(ids))
    return setter.done()


def num_rows(path: str) -> int:
    """Rows of a parquet file, from its footer. Raises BadFileError."""
    try:
        with _open(path) as handle:
            return int(pq.ParquetFile(handle).metadata.num_rows)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _unreadable(path, error) from error


class _Chunk:
    """Some rows of the file, and where they lie."""

    def __init__(self, batch: pa.RecordBatch, path: str, group: int, first: int) -> None:
        self._batch = batch
        self._path = path
        self._first = first
        self.group = group

    def ids(self, column: str) -> Int64s:
        """(n,) int64 raw ids."""
        array = one_array(self._batch.column(column))
        if array.null_count:
            self._refuse("is null; every vector needs an id", column, _nulls(array))
        try:
            ids = plain_ids(column, array)
        except BadRowsError as error:
            raise self._error(error.message, column, int(error.rows[0])) from error
        except DataError as error:
            raise DataError(error.message, file=self._path, column=column) from error
        return ids if ids.flags.writeable else ids.copy()

    def vectors(self, column: str, dim: int) -> npt.NDArray[np.float32]:
        """(n, D) float32, finite."""
        array = one_array(self._batch.column(column))
        if array.null_count:
            self._refuse("is null; every id needs a vector", column, _nulls(array))
        lengths = pc.list_value_length(array).to_numpy(zero_copy_only=False)
        if (lengths != dim).any():
            row = int(np.argmax(lengths != dim))
            raise self._error(f"holds a vector of {lengths[row]} values; the table's dim is {dim}", column, row)
        values = array.flatten()
        if values.null_count:
            self._refuse("holds a vector with a null in it", column, _any(_nulls(values), dim))
        with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, which is reported
            found: npt.NDArray[np.float32] = values.to_numpy(zero_copy_only=False).astype(np.float32).reshape(-1, dim)
        if (wrong := _any(~np.isfinite(found), dim)).any():
            self._refuse("holds a vector with a number that is not finite as float32", column, wrong)
        return found

    def _refuse(self, message: str, column: str, wrong: npt.NDArray[np.bool_]) -> None:
        raise self._error(message, column, int(np.argmax(wrong)))

    def _error(self, message: str, column: str, row: int) -> DataError:
        return DataError(message, file=self._path, row_group=self.group, column=column, row=self._first + row)


def _nulls(array: pa.Array) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = array.is_null().to_numpy(zero_copy_only=False)
    return found


def _any(values: npt.NDArray[np.bool_], dim: int) -> npt.NDArray[np.bool_]:
    """Whether any value of each vector is true: n * D values -> (n,)."""
    found: npt.NDArray[np.bool_] = np.logical_or.reduce(values.reshape(-1, dim), axis=1)
    return found


def _chunks(path: str, id_column: str, vector_column: str, dim: int) -> Iterator[_Chunk]:
    """The file's rows in order."""
    try:
        with _open(path) as handle:
            parquet = pq.ParquetFile(handle, page_checksum_verification=True)
            _check_columns(parquet.schema_arrow, path, id_column, vector_column)
            first = 0
            for group in range(parquet.metadata.num_row_groups):
                size = _part_rows(parquet.metadata.row_group(group), vector_column, dim)
                for batch in parquet.iter_batches(size, row_groups=[group], columns=[id_column, vector_column]):
                    yield _Chunk(batch, path, group, first)
                    first += batch.num_rows
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _part_rows(group: Any, vector_column: str, dim: int) -> int:
    """Rows to read at a time, by the values that the footer says a row has: vectors may be longer than they should."""
    columns = (group.column(number) for number in range(group.num_columns))
    values = max((c.num_values for c in columns if c.path_in_schema.split(".")[0] == vector_column), default=0)
    return int(max(1, _VALUES_PER_CHUNK // max(dim, -(-values // max(group.num_rows, 1)))))


def _check_columns(schema: pa.Schema, path: str, id_column: str, vector_column: str) -> None:
    for name in (id_column, vector_column):
        if name not in schema.names:
            raise DataError(f"is missing; the file has: {', '.join(schema.names)}", file=path, column=name)
    kind = schema.field(vector_column).type
    if not is_list(kind) or not pa.types.is_floating(kind.value_type):
        raise DataError(
            f"holds {kind}; vectors are lists of float16, float32 or float64", file=path, column=vector_column
        )


def _open(path: str) -> Any:
    if "://" in path:
        filesystem, path = fs.FileSystem.from_uri(path)
        return filesystem.open_input_file(path)
    return fs.LocalFileSystem().open_input_file(path)


def _unreadable(path: str, error: Exception) -> BadFileError:
    return BadFileError(f"cannot be read as parquet: {' '.join(str(error).split())}", file=path)

"""The input's columns that predictions carry over: one schema for all files, decided by their footers, and the rows.

Values are kept, types may have to widen. Where files agree on a type, it is that one (a dictionary's index becomes 32
bits wide, because the categories of all files together may be more than 8 bits can number). Where they do not:

    widths and signs of integers           the narrowest that holds both; uint64 with signed ones: decimal128(20, 0)
    integers with floats                   float64; an integer that it cannot hold is an error
    dictionaries with others, views        decoded; strings with bytes are bytes
    units of times, time zones             the finest unit; UTC
    null with anything                     the other
    lists, structs                         by their items and fields; a field that one lacks is null

Everything else is refused with both files. (What a *model* reads of a column follows the reader's rule, not this one.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from embtables.arrow.types import plain_type
from embtables.errors import DataError
from embtables.pipelines.sources.files.partitions import partition_column, partition_type
from embtables.pipelines.sources.files.source import LogFile, Source

BATCH_ROWS = 65_536
_LEAVE_OUT = "name the columns to carry over with --columns"


def carried_schema(source: Source, columns: Sequence[str]) -> pa.Schema:
    """The schema of the columns over all files; every field may be null.

    Raises:
        DataError: a file lacks a column or has two of its name, or types have none in common.
    """
    return pa.schema([(name, _one_type(source, name)) for name in columns])


def _one_type(source: Source, name: str) -> pa.DataType:
    files = source.files
    merged, origin = _type_in(source, files[0], name), files[0]
    for file in files[1:]:
        kind = _type_in(source, file, name)
        if kind.equals(merged):
            continue
        both = _common(merged, kind)
        if both is None:
            raise DataError(
                f"holds {kind}, but {merged} in {origin.path}; write one type, or {_LEAVE_OUT}",
                file=file.path,
                column=name,
            )
        if not both.equals(merged):
            merged, origin = both, file
    if pa.types.is_dictionary(merged) and merged.index_type.bit_width < 32:
        return pa.dictionary(pa.int32(), merged.value_type, merged.ordered)
    return merged


def _type_in(source: Source, file: LogFile, name: str) -> pa.DataType:
    if name in file.partition:
        return partition_type(source.partitions, name)
    times = len(file.schema.get_all_field_indices(name))
    if times != 1:
        wrong = f"is there {times} times" if times else f"is missing; the file has: {', '.join(file.column_names)}"
        raise DataError(f"{wrong}; {_LEAVE_OUT}", file=file.path, column=name)
    return file.schema.field(name).type


def _common(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """A type that holds the values of both; None: there is none."""
    if pa.types.is_dictionary(one) and pa.types.is_dictionary(other) and one.value_type == other.value_type:
        return pa.dictionary(pa.int32(), one.value_type, one.ordered and other.ordered)
    one, other = _decoded(one), _decoded(other)
    if pa.types.is_uint64(one) and pa.types.is_signed_integer(other):
        return pa.decimal128(20, 0)
    if pa.types.is_uint64(other) and pa.types.is_signed_integer(one):
        return pa.decimal128(20, 0)
    schemas = [pa.schema([("", kind)]) for kind in (one, other)]
    try:
        return pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except pa.ArrowException:
        return None


def _decoded(kind: pa.DataType) -> pa.DataType:
    """The type without what only says how values are stored."""
    if pa.types.is_date64(kind):
        return kind  # plain_type would make a time of it, which has no type in common with date32
    if pa.types.is_list(kind):
        return pa.list_(_decoded(kind.value_type))  # plain_type would widen the offsets, too
    kind = plain_type(kind)
    if pa.types.is_dictionary(kind):
        return kind.value_type
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        return pa.timestamp(kind.unit, "UTC")
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, _decoded(field.type)) for field in kind])
    if pa.types.is_large_list(kind):
        return pa.large_list(_decoded(kind.value_type))
    return kind


class CarriedRows:
    """The carried columns of all rows, in the order of the files.

    Args:
        source: the input.
        columns: the columns to carry; by default all that any file has.

    Raises:
        DataError: see `carried_schema`.
    """

    def __init__(self, source: Source, columns: Sequence[str] | None = None) -> None:
        self._source = source
        self.schema = carried_schema(source, source.column_names if columns is None else columns)
        self._pieces = self._read()
        self._rest: pa.Table | None = None

    def take(self, rows: int) -> pa.Table:
        """The next rows, as many as that.

        Raises:
            DataError: a value does not fit the type of all files, or there are fewer rows. BadFileError: damaged pages.
        """
        taken: list[pa.Table] = []
        while rows and self.schema.names:
            piece = self._rest if self._rest is not None else next(self._pieces, None)
            if piece is None:
                raise DataError(f"ended {rows:,} rows early: the files changed while they were read")
            taken.append(piece.slice(0, rows))
            self._rest = piece.slice(rows) if piece.num_rows > rows else None
            rows -= taken[-1].num_rows
        return pa.concat_tables(taken) if taken else self.schema.empty_table()

    def _read(self) -> Iterator[pa.Table]:
        for file in self._source.files:
            stored = [name for name in self.schema.names if name not in file.partition]
            if not stored:
                yield self._as_table(file, {}, file.num_rows)
                continue
            # Without pre_buffer: the pages of all row groups would be in memory at once.
            with file.opened(pre_buffer=False) as parquet:
                for batch in parquet.iter_batches(BATCH_ROWS, columns=stored):
                    columns = {name: batch.column(name) for name in stored}
                    yield self._as_table(file, columns, batch.num_rows)

    def _as_table(self, file: LogFile, columns: dict[str, pa.Array], rows: int) -> pa.Table:
        arrays = []
        for field in self.schema:
            array = columns.get(field.name)
            if array is None:
                text = file.partition[field.name]
                array = partition_column(self._source.partitions, field.name, text, rows, file.path)
            arrays.append(_cast(array, field.type, file=file.path, column=field.name))
        return pa.table(arrays, schema=self.schema)


def _cast(array: Any, kind: pa.DataType, **path: object) -> pa.Array:
    if array.type.equals(kind):
        return array
    if isinstance(array.type, pa.BaseExtensionType):
        array = array.storage
    try:
        return array.cast(kind)
    except pa.ArrowException as error:
        raise DataError(
            f"cannot be written as {kind}, which is its type over all files: {error}; {_LEAVE_OUT}", **path
        ) from error

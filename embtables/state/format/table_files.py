"""A table's content as Arrow IPC files, and where such a file has what: rows, waiting keys, tombstones, the sketch.

Each holds one uncompressed record batch in the order of the buckets. Arrow reads its metadata only after the bytes were
found to be those that the manifest records, and only a schema is accepted that a table would write, so that a file
cannot ask for more memory than its own length.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embtables.errors import StateError
from embtables.keyspace import NUM_BUCKETS, Buckets, Keys, Offsets, bucket_offsets
from embtables.rows.content import TableContent
from embtables.rows.optimizers import WEIGHT
from embtables.rows.row_format import ROW_DTYPES, RowFormat
from embtables.rows.sketch import HEADS, Bytes
from embtables.rows.sketch import columns as sketch_columns
from embtables.state.format.arrow_footer import Need, need_metadata
from embtables.state.format.arrow_writer import OFFSETS, Column, file_pieces
from embtables.state.format.manifest import File
from embtables.state.format.projection import SCALARS, Projection, held_columns
from embtables.state.format.weight_dtype import WeightDtype, dim_of, stored_dtype, stored_width

MAX_DIM = 4096


def rows_schema(
    row_format: RowFormat, row_columns: dict[str, bool], projection: Projection, dtype: WeightDtype = "fp32"
) -> pa.Schema:
    """Columns of a rows file of a version of this projection; `row_columns` are those of the table."""
    fields = [pa.field("key", pa.int64(), nullable=False)]
    for name, is_wide in held_columns(row_columns, projection).items():
        is_rounded = name == WEIGHT and dtype != "fp32"
        value = pa.from_numpy_dtype(stored_dtype(dtype) if is_rounded else row_format.dtype_of(name))
        width = stored_width(dtype, row_format.dim) if is_rounded else row_format.dim
        wide = pa.list_(pa.field("item", value, nullable=False), width)
        fields.append(pa.field(name, wide if is_wide else value, nullable=False))
    fields += [pa.field(n, pa.uint32(), nullable=False) for n in SCALARS[projection]]
    return pa.schema(fields)


WAITING_SCHEMA = pa.schema(
    [
        pa.field("key", pa.int64(), nullable=False),
        pa.field("count", pa.uint32(), nullable=False),
        pa.field("seen", pa.uint32(), nullable=False),
    ]
)
TOMBSTONES_SCHEMA = pa.schema([pa.field("key", pa.int64(), nullable=False)])


def rows_file(
    columns: Mapping[str, Column],
    row_format: RowFormat,
    row_columns: dict[str, bool],
    begins: npt.NDArray[np.uint64],
    projection: Projection,
    dtype: WeightDtype = "fp32",
) -> Iterator[memoryview]:
    """The bytes of a table's rows file, in pieces.

    Args:
        columns: key, seen and count (n,), and those of a row, (n, D) or (n,), as far as the projection holds them;
            whole or streamed.
        begins: (1,025,) where each bucket begins.

    Raises:
        StateError: a streamed column is not what it promised to be.
    """
    return file_pieces(columns, rows_schema(row_format, row_columns, projection, dtype), begins)


def file_columns(content: TableContent, row_format: RowFormat) -> dict[str, Column]:
    """The columns of a table's rows file."""
    found: dict[str, Column] = {"key": content.keys, "seen": content.seen, "count": content.counts}
    found |= {n: np.ascontiguousarray(values, row_format.dtype_of(n)) for n, values in content.columns.items()}
    return found | content.streamed


def waiting_file(content: TableContent, seed: int) -> Iterator[memoryview]:
    """The bytes of a table's file of waiting keys, in pieces."""
    columns: dict[str, Column] = {"key": content.waiting, "count": content.waiting_counts, "seen": content.waiting_seen}
    return file_pieces(columns, WAITING_SCHEMA, bucket_offsets(content.waiting, seed))


def tombstones_file(keys: Keys, seed: int) -> Iterator[memoryview]:
    """The bytes of a table's file of tombstones, in pieces."""
    return file_pieces({"key": keys}, TOMBSTONES_SCHEMA, bucket_offsets(keys, seed))


def sketch_schema(width: int) -> pa.Schema:
    """Columns of a file of the count sketch: `width` bytes of counters per bucket."""
    fields = [pa.field(name, pa.uint32(), nullable=False) for name in HEADS]
    counters = pa.list_(pa.field("item", pa.uint8(), nullable=False), width)
    return pa.schema([*fields, pa.field("counters", counters, nullable=False)])


def sketch_file(sketch: Bytes, buckets: Buckets) -> Iterator[memoryview]:
    """The bytes of a table's file of the count sketch, in pieces: buckets [first, end), a row each."""
    heads, counters = (half[slice(*buckets)] for half in sketch_columns(sketch))
    begins = np.arange(NUM_BUCKETS + 1).clip(*buckets) - buckets[0]
    found: dict[str, Column] = dict(zip(HEADS, np.ascontiguousarray(heads.T), strict=True))
    return file_pieces(found | {"counters": counters}, sketch_schema(counters.shape[1]), begins)


@dataclass(frozen=True, slots=True)
class Place:
    """A column: where its values begin in the file, and what they are, `width` per row; None: one, without an axis."""

    offset: int
    dtype: np.dtype[Any]
    width: int | None


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a table's file has what.

    Attributes:
        places: by column.
        begins: (1,025,) int64, where each bucket begins.
        format, row_columns: of a file of rows how they lie and what a row consists of, True: D values; else None and
            none.
    """

    places: dict[str, Place]
    begins: Offsets
    format: RowFormat | None
    row_columns: dict[str, bool]


def read_layout(
    raw: memoryview,
    need: Need,
    schema: pa.Schema | None,
    kind: tuple[Projection, WeightDtype],
    listed: File,
    file: object,
) -> Layout:
    """How a file is laid out.

    Args:
        raw: (bytes of the file,); only what was needed has to be there.
        need: see arrow_footer; nothing but metadata is asked for.
        schema: the columns that it has to have; None: those of rows of some dimension and optimizer.
        kind: of the version its projection, of its weights their dtype.
        listed: what the manifest says: how many rows, of which buckets.

    Raises:
        StateError: the file is not what a table would have written, or has rows of other buckets than listed.
    """
    try:
        need_metadata(raw, need, file)
        reader = pa.ipc.open_file(pa.BufferReader(raw))
        row_format, row_columns = None, dict[str, bool]()
        if schema is None:
            row_format, row_columns = _table_of(reader.schema, *kind, file)
            schema = rows_schema(row_format, row_columns, *kind)
        if not reader.schema.equals(schema):
            raise StateError(f"holds other columns than the table: {_difference(reader.schema, schema)}", file=file)
        batch = reader.get_batch(0)
        # Of numbers without nulls this looks at the lengths of buffers alone, not at values.
        batch.validate(full=True)
    except _NOT_ARROW as error:
        raise StateError(f"is damaged: {_first_line(error)}", file=file) from error
    arrays = [array for column in batch.columns for array in (column, _values_of(column))]
    if batch.num_rows != listed.rows or any(array.buffers()[0] is not None for array in arrays):
        raise StateError(f"has {batch.num_rows} rows, the manifest says {listed.rows}", file=file)
    base = pa.py_buffer(raw).address
    places = {field.name: _place(batch.column(field.name), base, len(raw), file) for field in schema}
    return Layout(places, _begins(reader.schema, listed, file), row_format, row_columns)


# What pyarrow and the reading of a footer raise for bytes that are no Arrow file; StateError is none of them.
_NOT_ARROW = (
    pa.ArrowException,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    ArithmeticError,
    struct.error,
    MemoryError,
)


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _begins(schema: pa.Schema, listed: File, file: object) -> Offsets:
    """Where each bucket begins, as the file's metadata says."""
    raw = (schema.metadata or {}).get(OFFSETS, b"")
    offsets = np.frombuffer(raw, "<u8") if len(raw) == 8 * (NUM_BUCKETS + 1) else np.zeros(0, "<u8")
    ends = 0, listed.rows
    if not len(offsets) or (offsets[0], offsets[-1]) != ends or (offsets[1:] < offsets[:-1]).any():
        raise StateError(f"is damaged: its {OFFSETS.decode()} are not those of {listed.rows} rows", file=file)
    if listed.buckets is not None and tuple(offsets[list(listed.buckets)]) != ends:
        first, end = listed.buckets
        raise StateError(f"has keys of other buckets than {first}..{end - 1}, which the manifest says", file=file)
    return offsets.astype(np.int64)


def _place(column: pa.Array, base: int, size: int, file: object) -> Place:
    values = _values_of(column)
    dtype = np.dtype(values.type.to_pandas_dtype())
    width = _list_size(column.type) or None
    if not len(column):
        return Place(0, dtype, width)
    offset = values.buffers()[1].address - base
    if not 0 <= offset <= size - len(column) * (width or 1) * dtype.itemsize:
        raise StateError("is damaged: a column lies beyond its end", file=file)
    return Place(offset, dtype, width)


def _values_of(column: pa.Array) -> pa.Array:
    """A column's values one after the other."""
    return column.values if _list_size(column.type) else column


def _table_of(
    schema: pa.Schema, projection: Projection, weights: WeightDtype, file: object
) -> tuple[RowFormat, dict[str, bool]]:
    """The format and the columns of rows of a file. Raises StateError where no table would have written it."""
    # Weight first, then optimizer state of D values or of one: any optimizer's, whether this process knows it or not.
    columns = {field.name: field.type for field in list(schema)[1 : -len(SCALARS[projection])]}
    row_columns = {name: pa.types.is_fixed_size_list(type_) for name, type_ in columns.items()}
    dim = dim_of(weights, _list_size(columns[WEIGHT])) if next(iter(row_columns), None) == WEIGHT else 0
    is_distinct = len(set(schema.names)) == len(schema.names)
    if is_distinct and 1 <= dim <= MAX_DIM:
        for row_format in (RowFormat(dim, dtype) for dtype in ROW_DTYPES):
            if rows_schema(row_format, row_columns, projection, weights).equals(schema):
                return row_format, row_columns
    raise StateError(f"holds columns that no table has: {', '.join(schema.names)}", file=file)


def _list_size(type_: pa.DataType) -> int:
    return int(type_.list_size) if pa.types.is_fixed_size_list(type_) else 0


def _difference(found: pa.Schema, wanted: pa.Schema) -> str:
    for name in dict.fromkeys([*found.names, *wanted.names]):
        theirs, ours = (s.field(name).type if name in s.names else "nothing" for s in (found, wanted))
        if theirs != ours:
            return f"column {name} is {theirs}, the table has {ours}"
    return "their order or number differs"

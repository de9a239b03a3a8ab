"""A table's content as Arrow IPC files and back: one file for rows, one for waiting keys, one for tombstones.

Each holds one uncompressed record batch in the order of the buckets. Arrow is read only after the file's length and
checksum were found to be the manifest's, and only where its schema is exactly the one that this table would write, so
that a file cannot ask for more memory than its own length.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embtables.errors import StateError
from embtables.keyspace import NUM_BUCKETS, Buckets, Keys, Offsets, bucket_offsets
from embtables.rows.content import Floats, TableContent, Words
from embtables.rows.sketch import HEADS, Bytes
from embtables.rows.sketch import columns as sketch_columns
from embtables.state.format.arrow_footer import Need, need_metadata
from embtables.state.format.arrow_writer import OFFSETS, Column, file_pieces
from embtables.state.format.manifest import File
from embtables.state.format.projection import SCALARS, Projection, row_parts

MAX_DIM = 4096


def rows_schema(dim: int, parts: dict[str, bool], projection: Projection) -> pa.Schema:
    """Columns of a rows file of a version of this projection; `parts` are those of the table."""
    wide = pa.list_(pa.field("item", pa.float32(), nullable=False), dim)
    fields = [pa.field("key", pa.int64(), nullable=False)]
    held = row_parts(parts, projection)
    fields += [pa.field(n, wide if is_wide else pa.float32(), nullable=False) for n, is_wide in held.items()]
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
    dim: int,
    parts: dict[str, bool],
    begins: npt.NDArray[np.uint64],
    projection: Projection,
) -> Iterator[memoryview]:
    """The bytes of a table's rows file, in pieces.

    Args:
        columns: key, seen and count (n,), and each part, (n, D) or (n,), as far as the projection holds them; whole or
            streamed.
        begins: (1,025,) where each bucket begins.

    Raises:
        StateError: a streamed column is not what it promised to be.
    """
    return file_pieces(columns, rows_schema(dim, parts, projection), begins)


def row_columns(content: TableContent) -> dict[str, Column]:
    """The columns of a table's rows file."""
    found: dict[str, Column] = {"key": content.keys, "seen": content.seen, "count": content.counts}
    found |= {name: np.ascontiguousarray(values, np.float32) for name, values in content.parts.items()}
    return found | content.streamed


def waiting_file(content: TableContent, seed: int) -> Iterator[memoryview]:
    """The bytes of a table's file of waiting keys, in pieces."""
    columns: dict[str, Column] = {"key": content.waiting, "count": content.waiting_counts, "seen": content.waiting_seen}
    return file_pieces(columns, WAITING_SCHEMA, bucket_offsets(content.waiting, seed))


def tombstones_file(keys: Keys, seed: int) -> Iterator[memoryview]:
    """The bytes of a table's file of tombstones, in pieces."""
    return file_pieces({"key": keys}, TOMBSTONES_SCHEMA, bucket_offsets(keys, seed))


def sketch_schema(width: int) -> pa.Schema:
    """Columns of a file of the count sketch: `width` bytes of counters a bucket."""
    fields = [pa.field(name, pa.uint32(), nullable=False) for name in HEADS]
    counters = pa.list_(pa.field("item", pa.uint8(), nullable=False), width)
    return pa.schema([*fields, pa.field("counters", counters, nullable=False)])


def sketch_file(sketch: Bytes, buckets: Buckets) -> Iterator[memoryview]:
    """The bytes of a table's file of the count sketch, in pieces: buckets [first, end), a row each."""
    heads, counters = (part[slice(*buckets)] for part in sketch_columns(sketch))
    begins = np.arange(NUM_BUCKETS + 1).clip(*buckets) - buckets[0]
    found: dict[str, Column] = dict(zip(HEADS, np.ascontiguousarray(heads.T), strict=True))
    return file_pieces(found | {"counters": counters}, sketch_schema(counters.shape[1]), begins)


def read_batch(raw: memoryview, schema: pa.Schema, rows: int, file: object) -> pa.RecordBatch:
    """The one batch of a file. Raises StateError where it is not what this table would have written."""
    return _opened(raw, need_whole(raw, file), schema, rows, file)[0]


def read_buckets(
    raw: memoryview, need: Need, schema: pa.Schema, listed: File, file: object, buckets: Buckets
) -> tuple[pa.RecordBatch, Offsets]:
    """The rows of buckets [first, end) of a file, and where each bucket begins among them, (end - first + 1,).

    Args:
        raw: (bytes of the file,); of its values only those of these buckets have to be there after `need` of them.
        need: see arrow_footer.
        listed: what the manifest says: how many rows, of which buckets.

    Raises:
        StateError: the file is not what this table would have written, or has rows of other buckets than listed.
    """
    assert listed.rows is not None
    assert listed.buckets is not None
    batch, metadata = _opened(raw, need, schema, listed.rows, file)
    offsets = np.frombuffer((metadata or {}).get(OFFSETS, b""), "<u8")
    ends = 0, listed.rows
    if len(offsets) != NUM_BUCKETS + 1 or (offsets[0], offsets[-1]) != ends or (offsets[1:] < offsets[:-1]).any():
        raise StateError(f"is damaged: its {OFFSETS.decode()} are not those of {listed.rows} rows", file=file)
    if tuple(offsets[list(listed.buckets)]) != ends:
        first, end = listed.buckets
        raise StateError(f"has keys of other buckets than {first}..{end - 1}, which the manifest says", file=file)
    begins = offsets[buckets[0] : buckets[1] + 1].astype(np.int64)
    first, end = int(begins[0]), int(begins[-1])
    base = pa.py_buffer(raw).address
    for column in batch.columns if end > first else []:
        values, width = _values_of(column)
        at = values.buffers()[1].address - base
        need(at + first * width, at + end * width)
    return batch.slice(first, end - first), begins - first


def _values_of(column: pa.Array) -> tuple[pa.Array, int]:
    """A column's values one after the other, and how many bytes a row has."""
    size = _list_size(column.type)
    values = column.values if size else column
    return values, max(1, size) * values.type.bit_width // 8


def _opened(
    raw: memoryview, need: Need, schema: pa.Schema, rows: int, file: object
) -> tuple[pa.RecordBatch, dict[bytes, bytes] | None]:
    """The batch of a file, its values perhaps not there yet, and the schema's metadata."""
    try:
        need_metadata(raw, need, file)
        reader = pa.ipc.open_file(pa.BufferReader(raw))
        if not reader.schema.equals(schema):
            raise StateError(f"holds other columns than the table: {_difference(reader.schema, schema)}", file=file)
        batch = reader.get_batch(0)
        # Of numbers without nulls this looks at the lengths of buffers alone, not at values.
        batch.validate(full=True)
    except (pa.ArrowException, struct.error, IndexError) as error:
        raise StateError(f"is damaged: {error}", file=file) from error
    arrays = [array for column in batch.columns for array in (column, _values_of(column)[0])]
    if batch.num_rows != rows or any(array.buffers()[0] is not None for array in arrays):
        raise StateError(f"has {batch.num_rows} rows, the manifest says {rows}", file=file)
    return batch, reader.schema.metadata


def need_whole(raw: memoryview, file: object) -> Need:
    """`need` of a file that is there whole."""

    def need(first: int, end: int) -> None:
        if not 0 <= first <= end <= len(raw):
            raise StateError(f"is damaged: it points to bytes {first}..{end} of its {len(raw)}", file=file)

    return need


def layout_of(raw: memoryview, file: object, projection: Projection) -> tuple[int, dict[str, bool]]:
    """The dimension and the parts of a rows file of this projection.

    Raises:
        StateError: no table would have written it.
    """
    try:
        schema = pa.ipc.open_file(pa.BufferReader(raw)).schema
    except pa.ArrowException as error:
        raise StateError(f"is damaged: {error}", file=file) from error
    # Weight first, then optimizer state of D values or of one: any optimizer's, whether this process knows it or not.
    columns = {field.name: field.type for field in list(schema)[1 : -len(SCALARS[projection])]}
    parts = {name: pa.types.is_fixed_size_list(type_) for name, type_ in columns.items()}
    dim = _list_size(columns["weight"]) if next(iter(parts), None) == "weight" else 0
    is_distinct = len(set(schema.names)) == len(schema.names)
    if is_distinct and 1 <= dim <= MAX_DIM and rows_schema(dim, parts, projection).equals(schema):
        return dim, parts
    raise StateError(f"holds columns that no table has: {', '.join(schema.names)}", file=file)


def _list_size(type_: pa.DataType) -> int:
    return int(type_.list_size) if pa.types.is_fixed_size_list(type_) else 0


def _difference(found: pa.Schema, wanted: pa.Schema) -> str:
    for name in dict.fromkeys([*found.names, *wanted.names]):
        theirs, ours = (s.field(name).type if name in s.names else "nothing" for s in (found, wanted))
        if theirs != ours:
            return f"column {name} is {theirs}, the table has {ours}"
    return "their order or number differs"


def rows_of(batch: pa.RecordBatch, dim: int, parts: dict[str, bool]) -> tuple[Keys, dict[str, Floats], Words, Words]:
    """Keys, parts, seen and counts (none where the file holds none) of a rows file's batch; views of its memory."""
    found: dict[str, Floats] = {}
    for name, is_wide in parts.items():
        column = batch.column(name)
        found[name] = column.flatten().to_numpy().reshape(-1, dim) if is_wide else column.to_numpy()
    return (
        batch.column("key").to_numpy(),
        found,
        batch.column("seen").to_numpy(),
        batch.column("count").to_numpy() if "count" in batch.schema.names else np.empty(0, np.uint32),
    )

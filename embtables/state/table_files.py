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
from embtables.state.arrow_writer import Column, file_pieces
from embtables.state.content import NUM_BUCKETS, Floats, Keys, TableContent, Words, bucket_offsets

_SCALARS = ("seen", "count")
ALL_BUCKETS = (0, NUM_BUCKETS)
MAX_DIM = 4096


_PARTS = {
    "sgd": {"weight": True},
    "adagrad": {"weight": True, "sum": True},
    "rowwise_adagrad": {"weight": True, "sum": False},
    "adam": {"weight": True, "exp_avg": True, "exp_avg_sq": True},
}


def parts_of(optimizer: str) -> dict[str, bool]:
    """The tensors that a row has a part of, by optimizer; True: D values a row, False: one."""
    return _PARTS[optimizer]


def optimizer_of(parts: Mapping[str, bool]) -> str:
    """The optimizer whose rows have these parts."""
    return next(optimizer for optimizer, known in _PARTS.items() if known == parts)


def rows_schema(dim: int, parts: dict[str, bool]) -> pa.Schema:
    """Columns of a rows file."""
    wide = pa.list_(pa.field("item", pa.float32(), nullable=False), dim)
    fields = [pa.field("key", pa.int64(), nullable=False)]
    fields += [pa.field(n, wide if is_wide else pa.float32(), nullable=False) for n, is_wide in parts.items()]
    fields += [pa.field(n, pa.uint32(), nullable=False) for n in _SCALARS]
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
    columns: Mapping[str, Column], dim: int, parts: dict[str, bool], begins: npt.NDArray[np.uint64]
) -> Iterator[memoryview]:
    """The bytes of a table's rows file, in pieces.

    Args:
        columns: key, seen and count (n,), and each part, (n, D) or (n,); whole or streamed.
        begins: (1,025,) where each bucket begins.

    Raises:
        StateError: a streamed column is not what it promised to be.
    """
    return file_pieces(columns, rows_schema(dim, parts), begins)


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


def read_batch(raw: memoryview, schema: pa.Schema, rows: int, file: object) -> pa.RecordBatch:
    """The one batch of a file. Raises StateError where it is not what this table would have written."""
    try:
        reader = pa.ipc.open_file(pa.BufferReader(raw))
        if not reader.schema.equals(schema) or reader.num_record_batches != 1:
            raise StateError(f"holds other columns than the table: {_difference(reader.schema, schema)}", file=file)
        _refuse_compressed(raw, file)
        batch = reader.get_batch(0)
        batch.validate(full=True)
    except (pa.ArrowException, struct.error, IndexError) as error:
        raise StateError(f"is damaged: {error}", file=file) from error
    if batch.num_rows != rows or any(column.null_count for column in batch.columns):
        raise StateError(f"has {batch.num_rows} rows, the manifest says {rows}", file=file)
    return batch


def layout_of(raw: memoryview, file: object) -> tuple[int, dict[str, bool]]:
    """The dimension and the parts of a rows file. Raises StateError where no table would have written it."""
    try:
        schema = pa.ipc.open_file(pa.BufferReader(raw)).schema
    except pa.ArrowException as error:
        raise StateError(f"is damaged: {error}", file=file) from error
    dim = _list_size(schema.field("weight").type) if "weight" in schema.names else 0
    for parts in _PARTS.values() if 1 <= dim <= MAX_DIM else ():
        if rows_schema(dim, parts).equals(schema):
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


def _refuse_compressed(raw: memoryview, file: object) -> None:
    """Arrow would decompress without asking how much memory that takes."""
    # The footer's length lies before the closing magic; its record batch blocks say where each message begins.
    stream = pa.ipc.MessageReader.open_stream(pa.BufferReader(raw[8:]))
    for message in iter(lambda: _next(stream), None):
        if message.type == "record batch" and _table_field(bytes(message.metadata), 3):
            raise StateError("is compressed, which this build never writes", file=file)


def _next(stream: pa.ipc.MessageReader) -> pa.ipc.Message | None:
    try:
        return stream.read_next_message()
    except (StopIteration, EOFError):
        return None


def _table_field(metadata: bytes, number: int) -> bool:
    """Whether the header table of a flatbuffer Message has its field `number`."""
    message = struct.unpack_from("<I", metadata, 0)[0]
    header = _field_at(metadata, message, 2)
    if header == 0:
        return False
    return _field_at(metadata, header + struct.unpack_from("<I", metadata, header)[0], number) != 0


def _field_at(buffer: bytes, table: int, number: int) -> int:
    """Where a flatbuffer table's field lies; 0 where it is absent."""
    vtable = table - struct.unpack_from("<i", buffer, table)[0]
    size = struct.unpack_from("<H", buffer, vtable)[0]
    at = 4 + 2 * number
    offset = struct.unpack_from("<H", buffer, vtable + at)[0] if at < size else 0
    return table + offset if offset else 0


def rows_of(batch: pa.RecordBatch, dim: int, parts: dict[str, bool]) -> tuple[Keys, dict[str, Floats], Words, Words]:
    """Keys, parts, seen and counts of a rows file's batch; views of its memory."""
    found: dict[str, Floats] = {}
    for name, is_wide in parts.items():
        column = batch.column(name)
        found[name] = column.flatten().to_numpy().reshape(-1, dim) if is_wide else column.to_numpy()
    return (
        batch.column("key").to_numpy(),
        found,
        batch.column("seen").to_numpy(),
        batch.column("count").to_numpy(),
    )

"""An Arrow IPC file with one uncompressed record batch, written in pieces: no whole column has to be in memory.

Arrow itself writes the file. A streamed column is, to Arrow, read-only pages of zeros that nobody ever touches; where
Arrow hands them to the file, the column's own bytes go there instead. So the bytes are those of the same column as one
array.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embtables.errors import StateError
from embtables.rows.content import Streamed

OFFSETS = b"embtables.bucket_offsets"

Array = npt.NDArray[Any]


Column = Array | Streamed


def file_pieces(columns: Mapping[str, Column], schema: pa.Schema, begins: Array) -> Iterator[memoryview]:
    """The bytes of a file, in pieces.

    Args:
        columns: by the schema's names, (n,) or (n, D) in the order of the buckets.
        schema: types without nulls, of values with a fixed width.
        begins: (1,025,) where each bucket begins.

    Raises:
        StateError: a streamed column does not have the promised type and length.
    """
    schema = schema.with_metadata({OFFSETS: begins.astype("<u8").tobytes()})
    streams: dict[tuple[int, int], Iterator[memoryview]] = {}
    arrays = []
    for field in schema:
        column = columns[field.name]
        if isinstance(column, Streamed):
            values = _placeholder(column)
            place = values.buffers()[1]
            streams[place.address, place.size] = column.bytes(field.name)
        else:
            values = pa.array(column.reshape(-1))
        wide = pa.types.is_fixed_size_list(field.type)
        arrays.append(pa.FixedSizeListArray.from_arrays(values, type=field.type) if wide else values)
    batch, sink = pa.record_batch(arrays, schema=schema), _Pieces()
    with pa.ipc.new_file(pa.PythonFile(sink, mode="w"), schema) as writer:
        writer.write_batch(batch)
        for view in sink.taken():
            yield from streams.pop((pa.py_buffer(view).address, len(view)), (view,))
    yield from sink.taken()
    for (_, size), stream in streams.items():
        if size:
            raise StateError(f"pyarrow {pa.__version__} writes columns in a way that cannot be streamed")
        yield from stream  # nothing, or it raises: Arrow writes nothing of a column without rows


def batch_pieces(batch: pa.RecordBatch) -> Iterator[memoryview]:
    """The bytes of a file with a batch that is in memory, in pieces."""
    sink = _Pieces()
    with pa.ipc.new_file(pa.PythonFile(sink, mode="w"), batch.schema) as writer:
        writer.write_batch(batch)
        yield from sink.taken()
    yield from sink.taken()


def _placeholder(column: Streamed) -> pa.Array:
    """An array of zeros as long as the column, of pages that take no memory unless they are read."""
    count, type_ = int(np.prod(column.shape)), pa.from_numpy_dtype(column.dtype)
    size = count * np.dtype(column.dtype).itemsize
    # Read-only private pages count towards no limit on memory. A mapping of no bytes cannot be made.
    pages = mmap.mmap(-1, max(1, size), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ)
    return pa.Array.from_buffers(type_, count, [None, pa.py_buffer(pages)[:size]], null_count=0)


class _Pieces:
    """What Arrow writes to, kept in pieces until they are taken: views of the columns, not copies."""

    def __init__(self) -> None:
        self._pieces: list[memoryview] = []
        self._size = 0
        self.closed = False

    def write(self, data: object) -> int:
        view = memoryview(data)  # type: ignore[arg-type]
        self._pieces.append(view)
        self._size += len(view)
        return len(view)

    def tell(self) -> int:
        return self._size

    def flush(self) -> None:
        return

    def close(self) -> None:
        self.closed = True

    def taken(self) -> list[memoryview]:
        taken, self._pieces = self._pieces, []
        return taken

"""Checksums of tables in memory, by column: of the values alone, however Arrow has cut them into chunks.

A frame that is given again for a run to go on must be the one that it began with. Of 1 GB of numbers that takes about
.3 s.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embtables.arrow.types import is_list, is_text, plain
from embtables.ids.strings import hash_strings
from embtables.inputs.values import one_array
from embtables.native import _core, isa

_ROWS = 1 << 20  # hashed together; part of what a checksum means
_INTEGERS = {1: pa.int8(), 2: pa.int16(), 4: pa.int32(), 8: pa.int64()}  # by width in bytes

Bytes = npt.NDArray[np.uint8]


def checksum(column: pa.ChunkedArray) -> str:
    """32 hexadecimal digits: of a column's type, its nulls and its values."""
    found = hashlib.sha256(str(column.type).encode())
    for start in range(0, len(column), _ROWS):
        for values in _bytes_of(plain(one_array(column.slice(start, _ROWS)))):
            found.update(_hash(values))
    return found.hexdigest()[:32]


def _hash(values: Bytes) -> bytes:
    """Size and 64-bit hash of some bytes, by the function that hashes strings: many times as fast as SHA-256."""
    out = np.empty(1, np.int64)
    _core.hash_strings(values, np.array([0, len(values)], np.int64), out, isa())
    return len(values).to_bytes(8, "little") + out.tobytes()


def _bytes_of(array: pa.Array) -> Iterator[Bytes]:
    """What an array of a plain type holds, without what lies under its nulls."""
    kind = array.type
    if pa.types.is_dictionary(kind) and (not is_text(kind) or array.dictionary.null_count):
        yield from _bytes_of(plain(array.dictionary_decode()))
        return
    yield array.is_valid().cast(pa.uint8()).to_numpy() if array.null_count else np.empty(0, np.uint8)
    if pa.types.is_null(kind):
        return
    if is_list(kind):
        yield _as_bytes(pc.list_value_length(array).fill_null(0).cast(pa.int64()).to_numpy())
        yield from _bytes_of(plain(pc.list_flatten(array)))
    elif pa.types.is_struct(kind):
        for field in array.flatten():
            yield from _bytes_of(plain(field))
    elif pa.types.is_dictionary(kind):  # by the hash of each string: neither codes nor their order matter
        hashes = np.append(hash_strings(array.dictionary), 0)  # the last one is that of a null
        yield _as_bytes(hashes[array.indices.cast(pa.int64()).fill_null(len(hashes) - 1).to_numpy()])
    elif is_text(kind):
        yield from _of_text(array)
    elif pa.types.is_boolean(kind):
        yield array.fill_null(False).cast(pa.uint8()).to_numpy()
    else:
        yield _of_numbers(array)


def _of_text(array: pa.Array) -> Iterator[Bytes]:
    array = array.fill_null("" if pa.types.is_string(array.type) or pa.types.is_large_string(array.type) else b"")
    narrow = pa.types.is_string(array.type) or pa.types.is_binary(array.type)
    _, offsets, data = array.buffers()
    ends = np.frombuffer(offsets, np.int32 if narrow else np.int64)[array.offset : array.offset + len(array) + 1]
    yield _as_bytes(np.diff(ends))
    yield np.empty(0, np.uint8) if data is None else np.frombuffer(data, np.uint8)[ends[0] : ends[-1]]


def _of_numbers(array: pa.Array) -> Bytes:
    """The bytes of values of one width: numbers, times, decimals, uuids. Of other types the bytes that Arrow sends."""
    try:
        width = array.type.bit_width // 8
    except ValueError:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, pa.schema([("", array.type)])) as out:
            out.write_batch(pa.record_batch([pa.concat_arrays([array])], names=[""]))
        return np.frombuffer(sink.getvalue(), np.uint8)
    if width in _INTEGERS:
        return _as_bytes(array.view(_INTEGERS[width]).fill_null(0).to_numpy())
    stored = array.buffers()[1]
    if not len(array) or stored is None:
        return np.empty(0, np.uint8)
    start = array.offset * width
    found = np.frombuffer(stored, np.uint8)[start : start + len(array) * width]
    if array.null_count:
        found = found.copy()
        found.reshape(len(array), width)[array.is_null().to_numpy(zero_copy_only=False)] = 0
    return found


def _as_bytes(values: npt.NDArray[np.signedinteger]) -> Bytes:
    return np.ascontiguousarray(values).view(np.uint8)

"""String ids become int64 by one pinned 64-bit hash: XXH3-64, seed 0 (docs/hash.md), over Arrow's buffers."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embtables.errors import DataError
from embtables.native import _core, isa


def hash_strings(array: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """The hash of every string of an Arrow array, (n,) int64; the whole 64-bit range occurs. A null gives 0.

    Takes string, large_string, binary, large_binary, string_view and dictionaries of them (each distinct value is
    hashed once); slices and chunks as well. No copy of the strings is made.

    Raises:
        DataError: the array is of another type, or its offsets are damaged.
    """
    if isinstance(array, pa.ChunkedArray):
        parts = [hash_strings(chunk) for chunk in array.chunks]
        return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, np.int64), *parts])
    if pa.types.is_dictionary(array.type):
        return _hash_dictionary(array)
    if pa.types.is_string_view(array.type) or pa.types.is_binary_view(array.type):
        array = array.cast(pa.large_string() if pa.types.is_string_view(array.type) else pa.large_binary())
    if pa.types.is_string(array.type) or pa.types.is_binary(array.type):
        width: type[np.int32 | np.int64] = np.int32
    elif pa.types.is_large_string(array.type) or pa.types.is_large_binary(array.type):
        width = np.int64
    else:
        raise DataError(f"only strings are hashed, received {array.type}")
    out = np.empty(len(array), np.int64)
    if len(array) == 0:
        return out
    _, offset_buffer, data_buffer = array.buffers()
    offsets: Any = np.frombuffer(offset_buffer, width)[array.offset : array.offset + len(array) + 1]
    data = np.empty(0, np.uint8) if data_buffer is None else np.frombuffer(data_buffer, np.uint8)
    try:
        _core.hash_strings(data, offsets, out, isa())
    except ValueError as error:
        raise DataError(str(error)) from error
    if array.null_count:
        out[array.is_null().to_numpy(zero_copy_only=False)] = 0
    return out


def _hash_dictionary(array: pa.DictionaryArray) -> npt.NDArray[np.int64]:
    hashes = hash_strings(array.dictionary)
    indices = array.indices
    if not indices.null_count:
        gathered: npt.NDArray[np.int64] = hashes[indices.to_numpy()]
        return gathered
    out = np.zeros(len(array), np.int64)
    valid = indices.is_valid().to_numpy(zero_copy_only=False)
    out[valid] = hashes[indices.drop_null().to_numpy()]
    return out

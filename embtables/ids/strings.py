"""String ids become int64 by one pinned 64-bit hash: XXH3-64, seed 0 (docs/hash.md), over Arrow's buffers."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embtables.errors import DataError
from embtables.native import _core, isa


def hash_strings(array: Any) -> npt.NDArray[np.int64]:
    """The XXH3-64 of the bytes of every string of an Arrow array, reinterpreted as int64.

    Takes string, large_string, binary, large_binary, their views, and dictionaries of them (each distinct value is
    hashed once); slices and chunks as well. Bytes are hashed as they lie: equal text in another Unicode normal form
    is another id, and nothing checks that text is UTF-8. The strings are not copied, except those of views.

    Args:
        array: n strings; also a list, a numpy array or a column of a data frame.

    Returns:
        (n,) int64; every value of the 64 bits can occur. A null gives 0, which is no reserved value: use the array's
        validity to find nulls.

    Raises:
        DataError: the array is of another type, or its offsets, indices or buffers are damaged.

    Example:
        >>> import embtables, pyarrow
        >>> embtables.hash_strings(pyarrow.array(["United Kingdom", None])).tolist()
        [8853588106534093199, 0]
    """
    if not isinstance(array, pa.Array | pa.ChunkedArray):
        # Here, because it takes torch, which readers of versions do without.
        from embtables.arguments import as_strings

        array = as_strings(array)
    if isinstance(array, pa.ChunkedArray):
        parts = [hash_strings(chunk) for chunk in array.chunks]
        return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, np.int64), *parts])
    kind = array.type
    if pa.types.is_dictionary(kind):
        return _hash_dictionary(array)
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        return _hash_views(array)
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        return _hash_buffers(array, np.dtype(np.int32))
    if pa.types.is_large_string(kind) or pa.types.is_large_binary(kind):
        return _hash_buffers(array, np.dtype(np.int64))
    raise DataError(f"only strings and dictionaries of strings are hashed, received {kind}; cast the column")


def _hash_buffers(array: pa.Array, offset_type: np.dtype[Any]) -> npt.NDArray[np.int64]:
    out = np.empty(len(array), np.int64)
    if not len(array):
        return out
    try:
        _core.hash_strings(*_buffers(array, offset_type), out, isa())
    except ValueError as error:
        raise DataError(f"{error}; read it again from its source") from error
    if array.null_count:
        out[array.is_null().to_numpy(zero_copy_only=False)] = 0
    return out


def split_strings(array: pa.Array, separator: str) -> tuple[pa.LargeStringArray, npt.NDArray[np.int64]]:
    """The non-empty pieces of n strings, one after the other, and (n + 1,) where those of each string begin.

    Args:
        array: of string or large_string, without nulls.
        separator: of at least one character.

    Raises:
        DataError: the array is damaged.
    """
    offset_type = np.dtype(np.int64 if pa.types.is_large_string(array.type) else np.int32)
    if not len(array):
        return pa.array([], pa.large_string()), np.zeros(1, np.int64)
    try:
        data, offsets, starts = _core.split_strings(*_buffers(array, offset_type), separator)
    except ValueError as error:
        raise DataError(f"{error}; read it again from its source") from error
    pieces = pa.LargeStringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(data))
    return pieces, starts


def _buffers(array: pa.Array, offset_type: np.dtype[Any]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[Any]]:
    """The bytes of strings, and (n + 1,) offsets into them, which are not checked; there is at least one string."""
    _check(array, full=False)  # constant time: sizes of the buffers; the core checks every offset
    _, offsets, data = array.buffers()
    starts = np.frombuffer(offsets, offset_type, len(array) + 1, array.offset * offset_type.itemsize)
    return np.frombuffer(data, np.uint8), starts


def _hash_views(array: pa.Array) -> npt.NDArray[np.int64]:
    # As bytes, because the full check of text would also decode it; without that check the cast trusts the views.
    views = array.view(pa.binary_view())
    _check(views, full=True)
    return hash_strings(views.cast(pa.large_binary()))


def _hash_dictionary(array: pa.DictionaryArray) -> npt.NDArray[np.int64]:
    hashes = hash_strings(array.dictionary)
    indices = array.indices
    _check(indices, full=False)
    valid = indices.is_valid().to_numpy(zero_copy_only=False)
    positions = indices.drop_null().to_numpy()
    outside = (positions < 0) | (positions >= len(hashes))
    if outside.any():
        row = int(np.flatnonzero(valid)[outside.argmax()])
        found = positions[outside.argmax()]
        raise DataError(f"index {found} lies outside the dictionary's {len(hashes)} values: it is damaged", row=row)
    out = np.zeros(len(array), np.int64)
    out[valid] = hashes[positions]
    return out


def _check(array: pa.Array, *, full: bool) -> None:
    try:
        array.validate(full=full)
    except (pa.ArrowInvalid, pa.ArrowIndexError) as error:
        raise DataError(f"the array is damaged: {error}; read it again from its source") from error


def hash_string(text: str) -> int:
    """The same hash of one string, as an integer of 0..2^64-1."""
    return int(hash_strings(pa.array([text]))[0]) % 2**64

"""Columns of numbers as float64 or float32, and `BadRowsError`: values that have no meaning.

A fault holds all rows of the table that share it, so that the caller can name the first one's file and row, or set all
of them aside.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embtables.arrow.types import plain
from embtables.errors import DataError
from embtables.schema import DenseColumn

Int64s = npt.NDArray[np.int64]
Float32s = npt.NDArray[np.float32]
Float64s = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

MAX_FLOAT32 = float(np.finfo(np.float32).max)
_BEYOND_FLOAT32 = float(2**128 - 2**103)  # the least number that rounds to infinity


class BadRowsError(DataError):
    """Rows (numbers within the converted table) whose value in a column has no meaning."""

    def __init__(self, message: str, column: str, rows: Int64s) -> None:
        super().__init__(message, column=column)
        self.column = column
        self.rows = rows


def one_array(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """The column as one array of a plain type; no copy if it is one."""
    column = plain(column)
    if not isinstance(column, pa.ChunkedArray):
        return column
    if column.num_chunks == 1:
        return column.chunk(0)
    combined = column.combine_chunks()
    return combined if not isinstance(combined, pa.ChunkedArray) else pa.concat_arrays(combined.chunks)


def bad_where(message: str, name: str, mask: Any, of_rows: Int64s | None = None) -> BadRowsError:
    """The fault of the values that a mask has.

    Args:
        of_rows: the table row of each value, if they are not one to one.
    """
    places = np.flatnonzero(mask)
    return BadRowsError(message, name, places if of_rows is None else np.unique(of_rows[places]))


def decimal_words(array: pa.Array) -> tuple[Int64s, Mask, Mask]:
    """Decimals of scale 0: their lowest 64 bits, and which of them int64 holds, and uint64. A null counts as 0."""
    if array.null_count:
        array = array.fill_null(0)
    words = array.type.bit_width // 64
    count = (array.offset + len(array)) * words
    stored = np.frombuffer(array.buffers()[1], np.int64, count).reshape(-1, words)[array.offset :]
    low, high = stored[:, 0].copy(), stored[:, 1:]
    is_zero, is_ones = (high == 0).all(axis=1), (high == -1).all(axis=1)
    return low, (is_zero & (low >= 0)) | (is_ones & (low < 0)), is_zero


def as_float64(
    name: str,
    array: pa.Array,
    *,
    fill: float | None,
    fill_nan: float | None = None,
    of_rows: Int64s | None = None,
    hint: str = "",
) -> Float64s:
    """(n,) finite float64 of a numeric or boolean array of a plain type.

    Args:
        fill: stands for nulls; without it a null is a bad row.
        fill_nan: stands for NaN; without it a NaN is a bad row.
        of_rows: the table row of each value, if they are not one to one.
        hint: what else to do about a null or a NaN, for the error.

    Raises:
        BadRowsError: a null, NaN or infinite number. DataError: the type holds no numbers.
    """
    kind = array.type
    if pa.types.is_boolean(kind):
        array = array.cast(pa.int8())
    elif pa.types.is_null(kind):
        array = array.cast(pa.float64())
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        raise DataError(f"holds {kind}; a number is needed", column=name)
    if array.null_count:
        if fill is None:
            raise bad_where(f"is null{hint}", name, array.is_null().to_numpy(zero_copy_only=False), of_rows)
        array = array.cast(pa.float64(), safe=False).fill_null(fill)
    numbers: Float64s = array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    finite = np.isfinite(numbers)
    if not finite.all():
        if fill_nan is not None:
            numbers = np.where(np.isnan(numbers), fill_nan, numbers)
            finite = np.isfinite(numbers)
        if not finite.all():
            shown = numbers[~finite][0]
            what = f"holds {shown}, a finite number is needed{hint if np.isnan(shown) else ''}"
            raise bad_where(what, name, ~finite, of_rows)
    return numbers


def plain_float32(array: pa.Array) -> Float32s | None:
    """(n,) the array's own numbers if each is a finite float32, as in most dense columns; None: see `as_float64`."""
    if not pa.types.is_float32(array.type) or array.null_count:
        return None
    numbers: Float32s = array.to_numpy()
    return numbers if np.isfinite(numbers).all() else None


def holds_float32(numbers: Float64s) -> bool:
    """Whether a float32 can hold each of the numbers, of any shape; not NaN."""
    # By two reductions: a mask of every value, or numpy's guard against overflow, would take longer than the cast.
    return numbers.size == 0 or bool(numbers.max() < _BEYOND_FLOAT32 and numbers.min() > -_BEYOND_FLOAT32)


def to_float32(
    name: str, numbers: Float64s, *, stored: Float64s | None = None, of_rows: Int64s | None = None
) -> Float32s:
    """(n,) finite float32 of float64.

    Args:
        stored: the numbers before their transforms, for the error.
        of_rows: the table row of each value, if they are not one to one.

    Raises:
        BadRowsError: a float32 cannot hold it.
    """
    if not holds_float32(numbers):
        wrong = ~(np.abs(numbers) < _BEYOND_FLOAT32)
        shown = (numbers if stored is None else stored)[wrong][0]
        after = " after its transforms" if stored is not None and shown != numbers[wrong][0] else ""
        raise bad_where(f"holds {shown:g}, which a float32 cannot hold{after}", name, wrong, of_rows)
    return numbers.astype(np.float32)


def usable_numbers(name: str, array: pa.Array, dense: DenseColumn | None = None) -> Float64s:
    """The numbers of a column that a transform is fitted on: faults are left out, the training pass reports them.

    Args:
        dense: the dense column that it is, whose fills stand for nulls and NaN; otherwise nulls are left out.
    """
    if dense is None or dense.fill_null is None:
        array = array.drop_null() if array.null_count else array
    fill, fill_nan = (None, None) if dense is None else (dense.fill_null, dense.fill_nan)
    try:
        return as_float64(name, array, fill=fill, fill_nan=fill_nan)
    except BadRowsError as error:
        kept = array.take(pa.array(np.delete(np.arange(len(array)), error.rows)))
        return as_float64(name, kept, fill=fill, fill_nan=fill_nan)

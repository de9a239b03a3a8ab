"""Tables and columns of strings as Arrow has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from torch import Tensor

from embtables.arguments.received import plain_tensor, received
from embtables.errors import DataError
from embtables.frames.table import arrow_table

_ARROW_ERRORS = (pa.ArrowException, TypeError, ValueError, OverflowError, AttributeError, KeyError)


def is_text(kind: pa.DataType) -> bool:
    """Whether a type holds strings or bytes, dictionary-encoded or not."""
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    views = pa.types.is_string_view(kind) or pa.types.is_binary_view(kind)
    texts = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return bool(views or texts or pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def as_strings(given: Any, argument: str = "strings", **where: Any) -> pa.Array | pa.ChunkedArray:
    """A list, numpy array or column of strings as an Arrow array; an Arrow array as it is.

        >>> as_strings(["a", None]).type
        DataType(string)

    Raises:
        DataError: it is no array of one type.
    """
    if isinstance(given, pa.Array | pa.ChunkedArray):
        return given
    values = received(given, argument, where)
    if isinstance(values, pa.Array):
        return values
    try:
        return pa.array(values.numpy() if isinstance(values, Tensor) else values)
    except _ARROW_ERRORS as error:
        raise DataError(f"is no column of strings: {_line(error)}", **where, argument=argument) from error


def as_table(given: Any, argument: str = "rows") -> pa.Table | pa.RecordBatch:
    """Rows as an Arrow table: a table or batch as it is, a data frame, or a list or array for each column.

        >>> as_table({"item": [7, 8], "tags": [[1], []]}).num_rows
        2

    Raises:
        DataError: it is no table, a column holds values of several types, or columns differ in length.
    """
    if isinstance(given, pa.Table | pa.RecordBatch):
        return given
    if isinstance(given, Mapping):
        return _of_columns(given, argument)
    try:
        found = arrow_table(given)
    except _ARROW_ERRORS as error:
        raise DataError(f"cannot be read as a table: {_line(error)}", argument=argument) from error
    if found is None:
        needed = "give an Arrow table, a data frame, or a dict of columns"
        raise DataError(f"received a {type(given).__name__}; {needed}", argument=argument)
    return found


def _of_columns(given: Mapping[Any, Any], argument: str) -> pa.Table:
    columns = {}
    for name, values in given.items():
        if not isinstance(name, str):
            raise DataError(f"names a column {name!r}; names are strings", argument=argument)
        columns[name] = _column(values, name)
    sizes = {name: len(column) for name, column in columns.items()}
    if len(set(sizes.values())) > 1:
        shown = ", ".join(f"{name} {size:,}" for name, size in sizes.items())
        raise DataError(f"columns differ in length: {shown}", argument=argument)
    return pa.table(columns)


def _column(values: Any, name: str) -> pa.Array | pa.ChunkedArray:
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values
    if isinstance(values, str | bytes) or not hasattr(values, "__len__"):
        raise DataError(f"received a {type(values).__name__}; give a list or an array", column=name)
    if isinstance(values, Tensor):
        values = plain_tensor(values, name, {})
        values = (values.float() if values.dtype.is_floating_point else values).numpy()
    if isinstance(values, np.ndarray) and values.ndim == 2:
        values = list(values)
    try:
        return pa.array(values)
    except _ARROW_ERRORS as error:
        try:  # Arrow takes Python's integers for int64
            return pa.array(values, pa.uint64())
        except _ARROW_ERRORS:
            raise DataError(f"is no column of one type: {_line(error)}", column=name) from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())

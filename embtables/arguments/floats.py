"""Rows, weights and single numbers as float32 or float, finite where they are kept."""

from __future__ import annotations

import math
import numbers
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from embtables.arguments.received import Plain, received, shown_type, writable
from embtables.errors import ConfigError, DataError


def as_floats(given: Any, shape: tuple[int, ...], argument: str, **where: Any) -> Tensor:
    """Values of a shape as float32, each finite as that: numbers of any type, rounded to the nearest float32.

        >>> as_floats([[1, 2.5]], (1, 2), "rows")
        tensor([[1.0000, 2.5000]])
        >>> as_floats([[1e300, 0]], (1, 2), "rows", table="item")
        Traceback (most recent call last):
        embtables.errors.DataError: table item, argument rows: must be finite as float32 ... row 0 ...

    Args:
        given: a torch tensor, numpy array, Arrow array (of lists for two dimensions) or nested list. A float32 tensor
            on the CPU is returned as it is.

    Raises:
        DataError: there are other things than numbers, another shape is received, or a value is beyond float32.
    """
    values = _float32(received(given, argument, where), argument, where)
    found = tuple(values.shape)
    if found != shape:
        raise DataError(f"must be finite and of shape {shape}, received {found}", **where, argument=argument)
    finite = values.isfinite()
    if not bool(finite.all()):
        row = int((~finite).nonzero()[0, 0])
        reason = f"must be finite as float32, received in row {row} a value that is not"
        raise DataError(reason, **where, argument=argument)
    return values


def as_number(given: Any, argument: str, *, least: float = -math.inf) -> float:
    """One finite number.

    Raises:
        ConfigError: it is none, or below `least`.
    """
    found = math.nan
    if isinstance(given, numbers.Real | np.number | Tensor) and not isinstance(given, bool):
        try:
            found = float(given)
        except (TypeError, ValueError, RuntimeError, OverflowError):
            found = math.nan
    if not math.isfinite(found) or found < least:
        needed = "a finite number" if least == -math.inf else f"a finite number from {least:g} on"
        raise ConfigError(f"must be {needed}, received {given!r:.60}", argument=argument)
    return found


def _float32(values: Plain, argument: str, where: dict[str, Any]) -> Tensor:
    if isinstance(values, Tensor):
        if values.dtype.is_complex:
            _refuse(values, argument, where)
        try:
            return values.to(torch.float32)
        except RuntimeError:
            _refuse(values, argument, where)
    if isinstance(values, pa.Array):
        return _of_arrow(values, argument, where)
    assert isinstance(values, np.ndarray)
    return _of_numpy(values, argument, where)


def _of_numpy(values: npt.NDArray[Any], argument: str, where: dict[str, Any]) -> Tensor:
    numeric = int | float | np.integer | np.floating
    if values.dtype == object and values.size and all(isinstance(value, numeric) for value in values.ravel()):
        values = np.array([_as_float(value) for value in values.ravel()]).reshape(values.shape)
    if values.dtype.kind not in "biuf":
        _refuse(values, argument, where)
    with np.errstate(over="ignore"):  # what is beyond float32 becomes infinite, which is reported
        return torch.from_numpy(writable(values.astype(np.float32, copy=False)))


def _of_arrow(values: pa.Array, argument: str, where: dict[str, Any]) -> Tensor:
    """A column of numbers (n,), or of lists of one length (n, D)."""
    lists = pa.types.is_list(values.type) or pa.types.is_large_list(values.type)
    lists = lists or pa.types.is_fixed_size_list(values.type)
    flat = values.flatten() if lists else values
    kind = flat.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        _refuse(values, argument, where)
    if values.null_count or flat.null_count:
        raise DataError("has nulls; give a number for each", **where, argument=argument)
    found = _of_numpy(flat.to_numpy(zero_copy_only=False), argument, where)
    if not lists or not len(values):
        return found
    lengths = set(values.value_lengths().to_pylist())
    if len(lengths) != 1:
        raise DataError(f"has lists of {min(lengths)} to {max(lengths)} values", **where, argument=argument)
    return found.reshape(len(values), lengths.pop())


def _as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _refuse(values: Plain, argument: str, where: dict[str, Any]) -> NoReturn:
    raise DataError(f"holds {shown_type(values)}; real numbers are needed", **where, argument=argument)

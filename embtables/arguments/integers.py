"""Ids and event times as int64 tensors, exactly or not at all."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from embtables.arguments.columns import as_strings, is_text
from embtables.arguments.received import Plain, received, shown_type, writable
from embtables.errors import DataError

Int64s = npt.NDArray[np.int64]
Hash = Callable[[pa.Array], Int64s]

_TO_HASH = "hash them as training does: embtables.hash_strings(pyarrow.array(ids))"
_INTEGERS = "ids are integers of any width (a uint64 keeps its 64 bits, true is 1)"


def is_int64s(given: Any) -> bool:
    """Whether it is a dense int64 tensor (n,) on the CPU, which needs no conversion."""
    return (
        type(given) is Tensor
        and given.dtype is torch.int64
        and given.dim() == 1
        and given.layout is torch.strided
        and not given.is_nested
        and given.device.type == "cpu"
    )


def as_ids(given: Any, argument: str = "ids", *, hash_strings: Hash | None = None, **where: Any) -> Tensor:
    """Ids (n,) int64, by value: a uint64 keeps its 64 bits, as in a log; booleans are 0 and 1.

        >>> import numpy as np
        >>> as_ids(np.array([3, 2**64 - 1], np.uint64))
        tensor([ 3, -1])
        >>> as_ids([1.5])
        Traceback (most recent call last):
        embtables.errors.DataError: argument ids: holds float64; ids are integers of any width ...

    Args:
        given: a torch tensor, numpy or Arrow array, pandas or polars column, or list. An int64 tensor on the CPU is
            returned as it is; others may share memory with the result.
        argument: its name, for errors.
        hash_strings: makes ids of strings; None: strings are refused.
        where: the path of errors: `table`, `feature`.

    Raises:
        DataError: there are floats, times, strings or nulls among them, integers beyond 64 bits, or more dimensions
            than one.
    """
    if is_int64s(given):
        found: Tensor = given
        return found
    values = received(given, argument, where)
    if hash_strings is not None and _holds_text(values):
        hashed = as_strings(given, argument, **where)
        if hashed.null_count:
            _refuse_nulls(hashed, argument, where)
        return torch.from_numpy(hash_strings(hashed))
    _refuse_dimensions(values, argument, where)
    if isinstance(values, Tensor):
        return _of_tensor(values, argument, where)
    if isinstance(values, pa.Array):
        return torch.from_numpy(_of_arrow(values, argument, where))
    return torch.from_numpy(_of_numpy(values, argument, where))


def as_microseconds(given: Any, argument: str = "event_time_us", **where: Any) -> Tensor:
    """Event times (n,) int64 in microseconds since 1970-01-01 UTC: integers as they are, timestamps converted.

        >>> import numpy as np
        >>> as_microseconds(np.array(["1970-01-01T00:00:02"], "datetime64[s]"))
        tensor([2000000])

    A timestamp without a zone is UTC; a finer unit is cut to microseconds.

    Raises:
        DataError: as `as_ids`, or a time is missing or beyond the range of int64 microseconds.
    """
    if is_int64s(given):
        found: Tensor = given
        return found
    values = received(given, argument, where)
    if isinstance(values, np.ndarray) and values.dtype.kind in "MO" and values.ndim == 1:
        try:
            values = pa.array(values)
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise DataError(f"holds {values.dtype}, which are no times: {error}", **where, argument=argument) from error
    if isinstance(values, pa.Array) and (pa.types.is_timestamp(values.type) or pa.types.is_date(values.type)):
        _refuse_nulls(values, argument, where)
        try:
            zone = getattr(values.type, "tz", None)
            micros = values.cast(pa.timestamp("us", tz=zone), safe=getattr(values.type, "unit", "s") != "ns")
        except pa.ArrowException as error:
            reason = f"holds a time beyond the range of microseconds: {error}"
            raise DataError(reason, **where, argument=argument) from error
        return torch.from_numpy(writable(micros.cast(pa.int64()).to_numpy(zero_copy_only=False)))
    if shown_type(values) in ("bool", "torch.bool", "uint64", "torch.uint64"):
        reason = f"holds {shown_type(values)}; times are int64 microseconds or timestamps"
        raise DataError(reason, **where, argument=argument)
    return as_ids(values, argument, **where)


def _of_tensor(values: Tensor, argument: str, where: dict[str, Any]) -> Tensor:
    kind = values.dtype
    if kind is torch.uint64:
        return values.view(torch.int64)
    if kind.is_floating_point or kind.is_complex:
        _refuse_type(kind, argument, where)
    try:
        return values.to(torch.int64)
    except RuntimeError:  # torch has types that nothing computes with
        _refuse_type(kind, argument, where)


def _of_arrow(values: pa.Array, argument: str, where: dict[str, Any]) -> Int64s:
    kind = values.type
    if is_text(kind):
        raise DataError(f"holds {kind}; {_TO_HASH}", **where, argument=argument)
    if len(values) and not (pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind)):
        _refuse_type(kind, argument, where)
    _refuse_nulls(values, argument, where)
    if not len(values):
        return np.empty(0, np.int64)
    return _of_numpy(values.to_numpy(zero_copy_only=False), argument, where)


def _of_numpy(values: npt.NDArray[Any], argument: str, where: dict[str, Any]) -> Int64s:
    kind = values.dtype.kind
    if not len(values):
        return np.empty(0, np.int64)
    if kind in "UST":
        raise DataError(f"holds strings; {_TO_HASH}", **where, argument=argument)
    if kind == "O":
        return _of_objects(values, argument, where)
    if kind not in "biu":
        _refuse_type(values.dtype, argument, where)
    if kind == "u" and values.dtype.itemsize == 8:
        return writable(values.astype(np.uint64, copy=False)).view(np.int64)
    return writable(values.astype(np.int64, copy=False))


def _of_objects(values: npt.NDArray[Any], argument: str, where: dict[str, Any]) -> Int64s:
    """Python's integers of any size that 64 bits hold."""
    found = np.empty(len(values), np.uint64)
    for place, value in enumerate(values.tolist()):
        if isinstance(value, str | bytes):
            reason = f"holds the string {_shown(value)} at {place}; {_TO_HASH}"
            raise DataError(reason, **where, argument=argument)
        try:
            integer = operator.index(value)
        except (TypeError, ValueError, RuntimeError):
            reason = f"holds {_shown(value)} at {place}; {_INTEGERS}"
            raise DataError(reason, **where, argument=argument) from None
        if not -(2**63) <= integer < 2**64:
            raise DataError(f"holds {integer} at {place}, which 64 bits do not hold", **where, argument=argument)
        found[place] = integer % 2**64
    return found.view(np.int64)


def _holds_text(values: Plain) -> bool:
    if isinstance(values, pa.Array):
        return is_text(values.type)
    if isinstance(values, np.ndarray):
        return values.dtype.kind in "UST" or (
            values.dtype.kind == "O" and any(isinstance(value, str | bytes) for value in values.ravel())
        )
    return False


def _refuse_dimensions(values: Plain, argument: str, where: dict[str, Any]) -> None:
    shape = (len(values),) if isinstance(values, pa.Array) else tuple(values.shape)
    if len(shape) != 1:
        hint = "put a single one into a list" if not shape else "give one list of them"
        raise DataError(f"has shape {shape}; one dimension is needed: {hint}", **where, argument=argument)


def _refuse_nulls(values: pa.Array, argument: str, where: dict[str, Any]) -> None:
    if values.null_count:
        place = int(np.argmax(values.is_null().to_numpy(zero_copy_only=False)))
        raise DataError(f"is null at {place}; leave out what has no value", **where, argument=argument)


def _refuse_type(kind: object, argument: str, where: dict[str, Any]) -> NoReturn:
    raise DataError(f"holds {kind}; {_INTEGERS}: cast them", **where, argument=argument)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."

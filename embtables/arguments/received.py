"""What was received, as one of three: a torch tensor on the CPU, a numpy array or an Arrow array."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor, nn

from embtables.errors import DataError

Plain: TypeAlias = "Tensor | npt.NDArray[Any] | pa.Array"


def received(given: Any, argument: str, where: dict[str, Any]) -> Plain:
    """The values that were given, not converted yet. A list becomes an array; one of objects where its types are mixed.

    Raises:
        DataError: it is no array of values, or one that this process does not hold.
    """
    if isinstance(given, Tensor):
        return plain_tensor(given, argument, where)
    if isinstance(given, pa.Array | pa.ChunkedArray):
        return _one_array(given)
    if isinstance(given, np.ndarray):
        return _unmasked(given, argument, where)
    if isinstance(given, str | bytes | set | frozenset | dict):
        raise DataError(f"received a {type(given).__name__}; give a list or an array", **where, argument=argument)
    if isinstance(given, Sequence) and not hasattr(given, "__array__"):
        return _of_sequence(given, argument, where)
    found = _by_arrow(given)
    return _of_array(given, argument, where) if found is None else found


def plain_tensor(given: Tensor, argument: str, where: dict[str, Any]) -> Tensor:
    """The same tensor on the CPU, for its values to be read; a copy only where they lie elsewhere."""
    kind = type(given).__name__
    if kind in ("DTensor", "ShardedTensor"):
        raise DataError(f"is a {kind}, of which this process may hold only a part", **where, argument=argument)
    if given.layout != torch.strided or given.is_nested or given.is_meta or given.is_quantized:
        shown = "a meta tensor" if given.is_meta else f"a tensor of {given.dtype}, {given.layout}"
        raise DataError(f"is {shown}; give a dense tensor that holds its values", **where, argument=argument)
    found = given.detach().cpu().resolve_conj().resolve_neg()
    return found if type(found) in (Tensor, nn.Parameter) else found.as_subclass(Tensor)


def shown_type(values: Plain) -> str:
    """The type of the values, for an error."""
    return str(values.type) if isinstance(values, pa.Array) else str(values.dtype)


def writable(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """An array that torch may share: contiguous, in this machine's byte order and not read-only."""
    values = np.ascontiguousarray(values)
    return values if values.flags.writeable else values.copy()


def _one_array(given: pa.Array | pa.ChunkedArray) -> pa.Array:
    if isinstance(given, pa.ChunkedArray):
        given = pa.concat_arrays(given.chunks) if given.num_chunks else pa.array([], given.type)
    while isinstance(given, pa.ExtensionArray):
        given = given.storage
    return given.dictionary_decode() if pa.types.is_dictionary(given.type) else given


def _unmasked(given: npt.NDArray[Any], argument: str, where: dict[str, Any]) -> npt.NDArray[Any]:
    if isinstance(given, np.ma.MaskedArray):
        if np.ma.getmaskarray(given).any():
            raise DataError("has masked values; leave them out", **where, argument=argument)
        return np.asarray(given.data)
    return given


def _of_sequence(given: Sequence[Any], argument: str, where: dict[str, Any]) -> npt.NDArray[Any]:
    found = _of_array(given, argument, where)
    integers_as_floats = found.dtype.kind == "f" and any(not isinstance(value, float | np.floating) for value in given)
    numbers_as_text = found.dtype.kind in "US" and any(not isinstance(value, str | bytes) for value in given)
    if found.ndim == 1 and (integers_as_floats or numbers_as_text):
        # numpy has made one type of several, and may have rounded.
        mixed = np.empty(len(given), object)
        mixed[:] = given
        return mixed
    return found


def _by_arrow(given: Any) -> pa.Array | None:
    """What an object says of itself by Arrow's C interface: polars, pandas and others."""
    try:
        if hasattr(given, "__arrow_c_array__"):
            return _one_array(pa.array(given))
        if hasattr(given, "__arrow_c_stream__"):
            return _one_array(pa.chunked_array(given))
    except (pa.ArrowException, TypeError, ValueError):
        pass  # pandas' columns of mixed objects, say
    return None


def _of_array(given: Any, argument: str, where: dict[str, Any]) -> npt.NDArray[Any]:
    try:
        found = np.asarray(given)
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"is no array of one shape: {reason}", **where, argument=argument) from error
    if found.dtype == object and found.ndim == 0:
        raise DataError(f"received a {type(given).__name__}; give a list or an array", **where, argument=argument)
    return found

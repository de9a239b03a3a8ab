"""One type for a column whose type differs between the files of a log: the one place where this is decided.

The rule, by plain types (embtables/arrow/types.py); anything else is refused, and both files are named:

    null with anything                       the other
    string or bytes, dictionaries of them    the large one; bytes if any file has bytes, plain if any file is plain
    integers and booleans                    int64; decimal(20, 0) if uint64 meets a signed type: exact, and an id of
                                             both is the same 64 bits
    decimals and integers                    a decimal with room for both
    floats                                   float64
    floats with integers, booleans, decimals float64, unless the column's values are ids: an id that became a float in
                                             one file has lost its last digits there
    timestamps of any unit and zone, dates   microseconds; without a zone they are UTC
    lists of any kind                        large_list of the items' one type
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from embtables.arrow.types import is_bytes, is_list, is_text, with_items
from embtables.errors import DataError

# No times, but what stands for earlier and later ones than microseconds can hold where files differ in their units.
EARLIEST, LATEST = -(2**63), 2**63 - 1
_MAX_DIGITS = 76
# Of 64 bits, also for narrow integers: what the files before hold must not matter.
_INTEGER_DIGITS = 20


def one_type(column: str, found: Iterable[tuple[pa.DataType, str]], *, ids: bool) -> pa.DataType:
    """The type of a column for all files.

    Args:
        found: its plain type in each file, and the file.
        ids: whether its values are ids or keys, so that they must be exact.

    Raises:
        DataError: two files hold what cannot be one column.
    """
    kind, origin = pa.null(), ""
    seen: set[pa.DataType] = set()
    for here, file in found:
        if here in seen:
            continue
        seen.add(here)
        merged = _merged(kind, here, ids)
        if merged is None:
            why = "; an id that became a float has lost digits" if _are_numbers(kind, here) else ""
            raise DataError(f"holds {here}, but {kind} in {origin}{why}", file=file, column=column)
        if merged != kind:
            kind, origin = merged, file if not origin or merged == here else origin
    return kind


def _are_numbers(a: pa.DataType, b: pa.DataType) -> bool:
    return all(pa.types.is_floating(k) or _is_exact(k) for k in (a, b))


def _is_exact(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_decimal(kind))


def _is_time(kind: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(kind) or pa.types.is_date32(kind))


def _merged(a: pa.DataType, b: pa.DataType, ids: bool) -> pa.DataType | None:
    if a == b or pa.types.is_null(b):
        return a
    if pa.types.is_null(a):
        return b
    if is_text(a) and is_text(b):
        values = pa.large_binary() if is_bytes(a) or is_bytes(b) else pa.large_string()
        encoded = pa.types.is_dictionary(a) and pa.types.is_dictionary(b)
        return pa.dictionary(pa.int32(), values) if encoded else values
    if is_list(a) and is_list(b):
        items = _merged(a.value_type, b.value_type, ids)
        return None if items is None else pa.large_list(items)
    if _is_time(a) and _is_time(b):
        zones = {getattr(a, "tz", None), getattr(b, "tz", None)}
        return pa.timestamp("us", zones.pop() if len(zones) == 1 else None if None in zones else "UTC")
    if _is_exact(a) and _is_exact(b):
        return _exact(a, b)
    if _are_numbers(a, b):
        both_float = pa.types.is_floating(a) and pa.types.is_floating(b)
        return pa.float64() if both_float or not ids else None
    return None


def _exact(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    kinds = (a, b)
    if not any(pa.types.is_decimal(k) for k in kinds):
        unsigned = [k for k in kinds if pa.types.is_uint64(k)]
        if not unsigned:
            return pa.int64()
        other = b if a in unsigned else a
        return pa.decimal128(20, 0) if pa.types.is_signed_integer(other) else pa.uint64()
    scale = max(k.scale if pa.types.is_decimal(k) else 0 for k in kinds)
    digits = max(_digits(k) for k in kinds) + scale
    if digits > _MAX_DIGITS:
        return None
    return pa.decimal128(digits, scale) if digits <= 38 else pa.decimal256(digits, scale)


def _digits(kind: pa.DataType) -> int:
    """Decimal digits before the point that a type can hold."""
    if pa.types.is_decimal(kind):
        return int(kind.precision - kind.scale)
    return 1 if pa.types.is_boolean(kind) else _INTEGER_DIGITS


def cast(column: pa.ChunkedArray, kind: pa.DataType, *, name: str, file: str) -> pa.ChunkedArray:
    """A file's column in the type that it has for the whole log.

    A time that microseconds cannot hold becomes `EARLIEST` or `LATEST`, which `microseconds` refuses with its row.

    Raises:
        DataError: a value does not fit.
    """
    if column.type == kind:
        return column
    try:
        return pa.chunked_array([_cast(chunk, kind) for chunk in column.chunks], kind)
    except pa.ArrowException as error:
        text = " ".join(str(error).split())
        raise DataError(f"does not fit {kind}, its type in the other files: {text}", file=file, column=name) from error


def _cast(array: pa.Array, kind: pa.DataType) -> pa.Array:
    if array.type == kind:
        return array
    if is_list(array.type) and is_list(kind):
        # Made of its type at once: pyarrow's cast of a list of null to another name of the item is damaged.
        return with_items(array, _cast(array.flatten(), kind.value_type), kind)
    if pa.types.is_boolean(array.type) and pa.types.is_decimal(kind):
        # An int8 has three digits, of which the decimal need not have room.
        return array.cast(pa.int8()).cast(pa.decimal256(_MAX_DIGITS, kind.scale)).cast(kind)
    if pa.types.is_floating(kind):
        return array.cast(kind, safe=False)
    return _microseconds(array, kind) if _is_time(array.type) and pa.types.is_timestamp(kind) else array.cast(kind)


def _microseconds(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """Times in microseconds, rounded to the past."""
    is_date = pa.types.is_date32(array.type)
    numbers = array.cast(pa.int32()).cast(pa.int64()) if is_date else array.cast(pa.int64())
    stored = (numbers.fill_null(0) if numbers.null_count else numbers).to_numpy(zero_copy_only=False)
    if not is_date and array.type.unit == "ns":
        micros = stored // 1_000
    else:
        factor = 86_400_000_000 if is_date else {"s": 1_000_000, "ms": 1_000, "us": 1}[array.type.unit]
        with np.errstate(over="ignore"):
            micros = stored * factor
        micros[stored > LATEST // factor] = LATEST
        micros[stored < EARLIEST // factor] = EARLIEST
    mask = array.is_null().to_numpy(zero_copy_only=False) if array.null_count else None
    return pa.array(micros, pa.int64(), mask=mask).cast(kind)

"""Values as a column of a named type: the same rows in another width, unit or encoding."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa

from tests.fuzz.drawn.columns import (
    BYTES,
    DECIMALS,
    FLOATS,
    FRACTIONS,
    INTS,
    TEXTS,
    Rng,
    as_text_type,
    dictionary_of,
)

_US = {"s": 1_000_000, "ms": 1_000, "us": 1}
_DAY = 86_400_000_000
_KINDS: dict[str, list[pa.DataType]] = {
    "int": [*INTS, *DECIMALS],
    "bool": [pa.bool_(), *INTS, *DECIMALS],
    "decimal": [*DECIMALS, *INTS],
    "float": FLOATS,
    "fraction": FRACTIONS,
    "text": TEXTS,
    "bytes": BYTES,
    "time": [pa.timestamp(u, z) for u in ("s", "ms", "us", "ns") for z in (None, "UTC", "Asia/Tokyo")]
    + [pa.date32(), pa.date64()],
    "null": [pa.null()],
}


def encoded(rng: Rng, family: str, values: list[Any]) -> pa.Array | None:
    """The values of a family (as the oracle has them) in a random type that holds them; None if no type does."""
    if family.startswith("list:"):
        return _lists(rng, family.removeprefix("list:"), values)
    kinds = _KINDS.get(family, [])
    for place in rng.permutation(len(kinds)):
        found = as_kind(rng, kinds[place], values)
        if found is not None:
            return found
    return None


def _lists(rng: Rng, family: str, values: list[Any]) -> pa.Array | None:
    items = encoded(rng, family, [item for value in values for item in value or ()])
    if items is None:
        return None
    offsets = np.cumsum([0, *(len(value or ()) for value in values)])
    mask = pa.array([value is None for value in values], pa.bool_()) if any(v is None for v in values) else None
    if rng.integers(2):
        return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), items, mask=mask)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), items, mask=mask)


def as_kind(rng: Rng, kind: pa.DataType, values: list[Any]) -> pa.Array | None:
    """The values as a column of one type; None if it does not hold them exactly."""
    there = [value for value in values if value is not None]
    if pa.types.is_null(kind):
        return pa.nulls(len(values)) if not there else None
    if pa.types.is_temporal(kind):
        return _times(kind, values)
    if kind in TEXTS or kind in BYTES:
        if not all(isinstance(value, bytes) for value in there):
            return None
        plain = pa.array(values, pa.binary())
        return dictionary_of(plain, kind, rng) if pa.types.is_dictionary(kind) else as_text_type(plain, kind)
    if pa.types.is_boolean(kind):
        return pa.array([None if v is None else bool(v) for v in values], kind) if set(there) <= {0, 1} else None
    try:
        if pa.types.is_decimal(kind):
            return pa.array([None if v is None else Decimal(v) for v in values], kind)
        array = pa.array([None if v is None else _number(kind, v) for v in values], kind)
    except (pa.ArrowException, OverflowError):
        return None
    exact = [None if v is None else repr(float(v) if pa.types.is_floating(kind) else int(v)) for v in values]
    found = [None if v is None else repr(float(v) if pa.types.is_floating(kind) else v) for v in array.to_pylist()]
    return array if found == exact else None


def _number(kind: pa.DataType, value: Any) -> Any:
    with np.errstate(over="ignore"):
        return int(value) if pa.types.is_integer(kind) else np.float16(value) if kind == pa.float16() else value


def _times(kind: pa.DataType, values: list[Any]) -> pa.Array | None:
    """Microseconds in the unit of a type."""
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        numbers = [None if v is None else v * 1_000 for v in values]
    else:
        unit = _DAY if pa.types.is_date32(kind) else 1_000 if pa.types.is_date64(kind) else _US[kind.unit]
        if any(v is not None and v % (_DAY if pa.types.is_date(kind) else unit) for v in values):
            return None
        numbers = [None if v is None else v // unit for v in values]
    try:
        return pa.array(numbers, pa.int32() if pa.types.is_date32(kind) else pa.int64()).view(kind)
    except (pa.ArrowException, OverflowError):
        return None

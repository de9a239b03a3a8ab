"""Columns of every Arrow type, by family: random values, with nulls, extremes and faults."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa

Rng = np.random.Generator
WORDS = ["a", "b", "é", "", "007", "7", "NO", "on", "1e3", "null", "a|b", "a||c", "x" * 100, "2024-01-02", " a"]
_NOT_TEXT = [b"\xff\xfe", b"caf\xe9", b"ok\x80|b"]
_ZONES = [None, None, "UTC", "Asia/Tokyo", "America/New_York", "+05:30"]
_2024 = 1_704_067_200
_UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


@dataclass(frozen=True)
class Mood:
    """What a column may hold: shares of nulls, of the ends of its type, and of values that mean nothing."""

    nulls: float = 0.0
    extremes: float = 0.0
    faults: float = 0.0


def mood(rng: Rng) -> Mood:
    nulls, extremes, faults = (float(rng.choice(shares)) for shares in ([0, 0, 0.2, 1], [0, 0, 0.1], [0, 0, 0, 0.1]))
    return Mood(nulls if rng.random() < 0.9 else 0.0, extremes, faults)


def _picked(
    rng: Rng, n: int, mood: Mood, plain: Callable[[], Any], extremes: list[Any], faults: list[Any]
) -> list[Any]:
    values = []
    for _ in range(n):
        if rng.random() < mood.nulls:
            values.append(None)
        elif faults and rng.random() < mood.faults:
            values.append(faults[rng.integers(len(faults))])
        elif extremes and rng.random() < mood.extremes:
            values.append(extremes[rng.integers(len(extremes))])
        else:
            values.append(plain())
    return values


def _ints(kind: pa.DataType) -> Callable[[Rng, int, Mood], pa.Array]:
    info = np.iinfo(kind.to_pandas_dtype())
    low = 0 if info.min == 0 else -3

    def make(rng: Rng, n: int, mood: Mood) -> pa.Array:
        ends = [int(info.min), int(info.max), 0, int(info.max) - 1]
        return pa.array(_picked(rng, n, mood, lambda: int(rng.integers(low, 12)), ends, []), kind)

    return make


def _bits(rng: Rng, n: int, mood: Mood) -> pa.Array:
    return pa.array(_picked(rng, n, mood, lambda: bool(rng.integers(2)), [], []), pa.bool_())


def _floats(kind: pa.DataType) -> Callable[[Rng, int, Mood], pa.Array]:
    def make(rng: Rng, n: int, mood: Mood) -> pa.Array:
        wide = [1e300, -1e300] if kind == pa.float64() else []
        faults = [float("nan"), float("inf"), float("-inf"), *wide]
        ends = [0.0, -0.0, 65504.0] if kind == pa.float16() else [0.0, -0.0, 1e30, -1e-30]
        values = _picked(rng, n, mood, lambda: float(rng.integers(-2, 9)) / 2, ends, faults)
        if kind == pa.float16():
            return pa.array([None if v is None else np.float16(v) for v in values], kind)
        return pa.array(values, kind)

    return make


def _labels(kind: pa.DataType) -> Callable[[Rng, int, Mood], pa.Array]:
    def make(rng: Rng, n: int, mood: Mood) -> pa.Array:
        faults = [None] if pa.types.is_boolean(kind) else [None, 2]
        cast = {pa.float16(): np.float16, pa.bool_(): bool}.get(kind, Decimal if pa.types.is_decimal(kind) else int)
        plain = Mood(0.0, 0.0, mood.faults)
        values = _picked(rng, n, plain, lambda: int(rng.integers(2)), [], faults)
        return pa.array([None if v is None else cast(v) for v in values], kind)

    return make


def _decimals(kind: pa.DataType) -> Callable[[Rng, int, Mood], pa.Array]:
    def make(rng: Rng, n: int, mood: Mood) -> pa.Array:
        digits = min(kind.precision, 30)
        large = Decimal((0, (9,) * digits, -kind.scale))
        ends = [large, large.copy_negate()] + (
            [Decimal(2**63), Decimal(2**64 - 1), Decimal(-(2**63))] if kind.precision > 19 else []
        )
        ends = [end for end in ends if kind.scale == 0 or end in ends[:2]]
        values = _picked(rng, n, mood, lambda: Decimal(int(rng.integers(-3, 12))), ends, [])
        return pa.array(values, kind)

    return make


def _texts(kind: pa.DataType) -> Callable[[Rng, int, Mood], pa.Array]:
    def make(rng: Rng, n: int, mood: Mood) -> pa.Array:
        words = [w.encode() for w in WORDS]
        values = _picked(rng, n, mood, lambda: words[rng.integers(len(words))], [], _NOT_TEXT)
        if pa.types.is_dictionary(kind):
            return dictionary_of(pa.array(values, pa.binary()), kind, rng)
        return as_text_type(pa.array(values, pa.binary()), kind)

    return make


def dictionary_of(values: pa.Array, kind: pa.DataType, rng: Rng) -> pa.Array:
    encoded = values.dictionary_encode()
    words = encoded.dictionary
    if rng.random() < 0.3:  # a value that no row has
        words = pa.concat_arrays([words, pa.array([b"unused"], words.type)])
    return pa.DictionaryArray.from_arrays(encoded.indices.cast(kind.index_type), as_text_type(words, kind.value_type))


def as_text_type(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """Bytes as a type of text or bytes, unchecked."""
    if pa.types.is_large_string(kind) or pa.types.is_large_binary(kind):
        array = array.cast(pa.large_binary())
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        array = array.cast(pa.binary_view())
    return array.view(kind)


def _fixed(kind: pa.DataType, width: int) -> Callable[[Rng, int, Mood], pa.Array]:
    def make(rng: Rng, n: int, mood: Mood) -> pa.Array:
        pool = [b"abcdefghijklmnop"[:width], bytes(width), b"\xff" * width, uuid.UUID(int=7).bytes[:width]]
        return pa.array(_picked(rng, n, mood, lambda: pool[rng.integers(len(pool))], [], []), kind)

    return make


def _stamps(kind: pa.DataType) -> Callable[[Rng, int, Mood], pa.Array]:
    def make(rng: Rng, n: int, mood: Mood) -> pa.Array:
        scale = _UNITS[kind.unit]
        ends = [0, -1, 1, -scale - 1, 253_402_300_799 * scale if kind.unit != "ns" else 2**62]
        # Beyond microseconds, but not beyond the milliseconds that parquet stores seconds as.
        faults = {"s": [2**62 // 1000, -(2**62) // 1000], "ms": [2**62, -(2**62)]}.get(kind.unit, [])
        values = _picked(rng, n, mood, lambda: (_2024 + int(rng.integers(0, 400)) * 3600) * scale, ends, faults)
        return pa.array(values, pa.int64()).view(kind)

    return make


def _dates(kind: pa.DataType) -> Callable[[Rng, int, Mood], pa.Array]:
    def make(rng: Rng, n: int, mood: Mood) -> pa.Array:
        wide = pa.types.is_date64(kind)
        scale = 86_400_000 if wide else 1
        faults = [] if wide else [2**31 - 1, -(2**31)]
        days = _picked(rng, n, mood, lambda: 19_723 + int(rng.integers(0, 20)), [0, -1, 1], faults)
        storage = pa.int64() if wide else pa.int32()
        return pa.array([None if d is None else d * scale for d in days], storage).view(kind)

    return make


def _odd(kind: pa.DataType, value: Any) -> Callable[[Rng, int, Mood], pa.Array]:
    return lambda rng, n, mood: pa.array([None if rng.random() < mood.nulls else value for _ in range(n)], kind)


def _nothing(_: Rng, n: int, __: Mood) -> pa.Array:
    return pa.nulls(n)


Make = Callable[[Rng, int, Mood], pa.Array]
INTS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]
FLOATS = [pa.float16(), pa.float32(), pa.float64()]
DECIMALS = [pa.decimal128(5, 0), pa.decimal128(20, 0), pa.decimal128(38, 0), pa.decimal256(50, 0)]
FRACTIONS = [pa.decimal128(7, 2), pa.decimal128(30, 4)]
_DICTIONARIES = [pa.dictionary(i, v) for i in (pa.int8(), pa.int32()) for v in (pa.string(), pa.large_string())]
TEXTS = [pa.string(), pa.large_string(), pa.string_view(), *_DICTIONARIES]
BYTES = [pa.binary(), pa.large_binary(), pa.binary_view(), pa.dictionary(pa.int16(), pa.binary())]

FAMILIES: dict[str, dict[str, Make]] = {
    "int": {str(k): _ints(k) for k in INTS},
    "bool": {"bool": _bits},
    "float": {str(k): _floats(k) for k in FLOATS},
    "decimal": {str(k): _decimals(k) for k in DECIMALS},
    "fraction": {str(k): _decimals(k) for k in FRACTIONS},
    "text": {str(k): _texts(k) for k in TEXTS},
    "bytes": {
        **{str(k): _texts(k) for k in BYTES},
        "binary(4)": _fixed(pa.binary(4), 4),
        "uuid": _fixed(pa.uuid(), 16),
    },
    "time": {f"timestamp[{u}, {z}]": _stamps(pa.timestamp(u, z)) for u in _UNITS for z in dict.fromkeys(_ZONES)},
    "date": {"date32": _dates(pa.date32()), "date64": _dates(pa.date64())},
    "null": {"null": _nothing},
    "label": {str(k): _labels(k) for k in [*INTS, *FLOATS, pa.bool_(), pa.decimal128(3, 0)]},
    "odd": {
        "time64": _odd(pa.time64("us"), 5),
        "duration": _odd(pa.duration("us"), 5),
        "struct": _odd(pa.struct({"a": pa.int64()}), {"a": 1}),
        "map": _odd(pa.map_(pa.string(), pa.int64()), [("k", 1)]),
        "list<list>": _odd(pa.list_(pa.list_(pa.int64())), [[1]]),
        "list<struct>": _odd(pa.list_(pa.struct({"a": pa.int64()})), [{"a": 1}]),
    },
}
# Families whose types may meet in one column of ids, or of numbers.
ID_GROUPS = [
    ["int", "bool", "decimal"],
    ["text", "bytes"],
    ["time", "date"],
    ["null"],
    ["float"],
    ["fraction"],
    ["odd"],
]
NUMBER_GROUPS = [["int", "bool", "float", "decimal", "fraction"], ["null"], ["text"], ["time"], ["odd"]]
LISTS = ("list", "large_list", "list_view", "fixed")


def make(rng: Rng, family: str, name: str, n: int, mood: Mood) -> pa.Array:
    """A random column of a type by its name."""
    return FAMILIES[family][name](rng, n, mood)


def make_list(
    rng: Rng,
    family: str,
    name: str,
    n: int,
    mood: Mood,
    wrap: str,
    lengths: list[int] | None = None,
    longest: int = 4,
) -> pa.Array:
    """A random column of lists; null lists and null items as the mood has them. `longest`: items of the first one."""
    sizes = [int(rng.integers(0, 5)) for _ in range(n)] if lengths is None else lengths
    if longest > 4 and n:
        sizes = [longest, *sizes[1:]]
    sizes = [2] * n if wrap == "fixed" else sizes
    of_items = replace(mood, nulls=mood.nulls if mood.nulls < 1 else 0.0)
    items = make(rng, family, name, sum(sizes), of_items)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    missing = np.array([rng.random() < mood.nulls for _ in range(n)], np.bool_)
    mask = pa.array(missing) if missing.any() and lengths is None else None
    if wrap == "fixed":
        return pa.FixedSizeListArray.from_arrays(items, 2, mask=mask)
    if wrap == "large_list":
        return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), items, mask=mask)
    plain = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), items, mask=mask)
    if wrap == "list_view":
        return pa.ListViewArray.from_arrays(
            pa.array(offsets[:-1], pa.int32()), pa.array(sizes, pa.int32()), items, mask=mask
        )
    return plain

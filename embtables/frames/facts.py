"""`ColumnFacts`: what a sample says of a column: its kind, how many values it has, nulls, range, lengths."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Kind = Literal["integer", "number", "text", "boolean", "time", "ids", "texts", "numbers", "null", "other"]
_TIME = re.compile(r"\d{4}-\d\d-\d\d([T ]|$)")
_OF_LIST: dict[str, Kind] = {"integer": "ids", "text": "texts", "boolean": "ids", "number": "numbers"}


@dataclass(frozen=True)
class ColumnFacts:
    """A column of a sample.

    Attributes:
        type: its Arrow type.
        kind: what it holds; `ids`, `texts` and `numbers` are lists.
        rows: of the sample.
        nulls: rows without a value.
        distinct: how many values there are; of lists, of their elements.
        low, high: least and greatest number or time; None of other kinds, or if there is none.
        quantiles: of numbers 1 %, 50 % and 99 %.
        not_finite: numbers that are NaN or infinite.
        length: of text and of lists the mean and the greatest.
        separated: share of the texts that hold a `|`.
        times_as_text: whether the first texts are dates or times.
    """

    type: str
    kind: Kind
    rows: int
    nulls: int
    distinct: int
    low: Any = None
    high: Any = None
    quantiles: tuple[float, float, float] | None = None
    not_finite: int = 0
    length: tuple[float, int] | None = None
    separated: float = 0.0
    times_as_text: bool = False

    @property
    def values(self) -> int:
        """Rows with a value."""
        return self.rows - self.nulls


def _is_whole(type_: pa.DataType) -> bool:
    return bool(pa.types.is_decimal(type_) and type_.scale == 0)


def kind_of(type_: pa.DataType) -> Kind:
    """What a type of column is for a model."""
    if pa.types.is_dictionary(type_):
        return kind_of(type_.value_type)
    if pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_):
        return _OF_LIST.get(kind_of(type_.value_type), "other")
    checks: dict[Kind, tuple[Any, ...]] = {
        "null": (pa.types.is_null,),
        "boolean": (pa.types.is_boolean,),
        "integer": (pa.types.is_integer, _is_whole),
        "number": (pa.types.is_floating, pa.types.is_decimal),
        "text": (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view),
        "time": (pa.types.is_timestamp, pa.types.is_date),
    }
    return next((kind for kind, of in checks.items() if any(check(type_) for check in of)), "other")


def facts_of(column: pa.ChunkedArray) -> ColumnFacts:
    """The facts of one column of a sample."""
    kind, rows, nulls = kind_of(column.type), len(column), column.null_count
    base: dict[str, Any] = {"type": str(column.type), "kind": kind, "rows": rows, "nulls": nulls}
    array = plain(column)
    if kind == "integer" and pa.types.is_floating(array.type):  # decimals of more than 64 bits are no ids
        base["kind"] = kind = "number"
    if kind in ("null", "other"):
        return ColumnFacts(**base, distinct=0)
    if kind in ("ids", "texts", "numbers"):
        lengths = pc.list_value_length(array).drop_null()
        inner = plain(pa.chunked_array([pc.list_flatten(array)]))
        mean, most = (float(pc.mean(lengths).as_py()), int(pc.max(lengths).as_py())) if len(lengths) else (0.0, 0)
        return ColumnFacts(**base, distinct=_distinct(inner), length=(mean, most))
    if kind == "text" and not _is_utf8(array):
        return ColumnFacts(**{**base, "kind": "other", "type": "bytes that are not UTF-8"}, distinct=0)
    distinct = _distinct(array)
    if kind == "text":
        lengths = pc.utf8_length(array)
        found = (float(pc.mean(lengths).as_py() or 0.0), int(pc.max(lengths).as_py() or 0))
        separated = pc.mean(pc.cast(pc.match_substring(array, "|"), pa.float64())).as_py() or 0.0
        first = array.drop_null().slice(0, 100).to_pylist()
        times = bool(first) and all(_TIME.match(each) for each in first)
        return ColumnFacts(**base, distinct=distinct, length=found, separated=float(separated), times_as_text=times)
    if kind == "boolean":
        return ColumnFacts(**base, distinct=distinct)
    if kind == "time":
        low, high = _ends(array)
        return ColumnFacts(**base, distinct=distinct, low=low, high=high)
    return ColumnFacts(**base, distinct=distinct, **_of_numbers(array, kind))


def _ends(times: pa.Array) -> tuple[Any, Any]:
    """The first and last time; None if Python has no date for one of them."""
    try:
        ends = pc.min_max(times).as_py()
    except (OverflowError, ValueError):
        return None, None
    return ends["min"], ends["max"]


def plain(column: pa.ChunkedArray) -> pa.Array:
    """One array without a dictionary or views; decimals as integers of 64 bits if they are some, else as float64, as
    half floats are.
    """
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_string_view(array.type):
        return array.cast(pa.large_string())
    if _is_whole(array.type):
        for kind in (pa.int64(), pa.uint64()):
            try:
                return array.cast(kind)
            except pa.ArrowInvalid:
                continue
    is_odd = pa.types.is_decimal(array.type) or pa.types.is_float16(array.type)
    return array.cast(pa.float64()) if is_odd else array


def _is_utf8(array: pa.Array) -> bool:
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _distinct(array: pa.Array) -> int:
    return int(pc.count_distinct(array, mode="only_valid").as_py())


def _of_numbers(array: pa.Array, kind: Kind) -> dict[str, Any]:
    """Range and quantiles; integers stay exact."""
    numbers = array.drop_null().cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    finite = numbers[np.isfinite(numbers)]
    if not len(finite):
        return {"not_finite": len(numbers)}
    low, high = (float(finite.min()), float(finite.max()))
    if kind == "integer":
        ends = pc.min_max(array).as_py()
        low, high = ends["min"], ends["max"]
    middle = np.quantile(finite, (0.01, 0.5, 0.99))
    quantiles = (float(middle[0]), float(middle[1]), float(middle[2]))
    return {"low": low, "high": high, "quantiles": quantiles, "not_finite": len(numbers) - len(finite)}

"""One Arrow column at a time: ids as jagged int64 arrays, numbers as float64, times as microseconds.

A value that has no meaning is reported as `BadRowsError`, which holds all rows of the table that share the fault, so
that the caller can name the first one's file and row, or set all of them aside.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embtables.errors import DataError
from embtables.ids.cross import cross_ids
from embtables.ids.strings import hash_strings
from embtables.schema import EventTime, Feature

Int64s = npt.NDArray[np.int64]
Float32s = npt.NDArray[np.float32]
Float64s = npt.NDArray[np.float64]

MAX_IDS_PER_ROW = 65_536
_UNIT_TO_US = {"s": 1_000_000, "ms": 1_000, "us": 1}


class BadRowsError(DataError):
    """Rows (numbers within the converted table) whose value in a column has no meaning."""

    def __init__(self, message: str, column: str, rows: Int64s) -> None:
        super().__init__(message, column=column)
        self.column = column
        self.rows = rows


@dataclass(frozen=True, slots=True)
class Ids:
    """Ids of n rows: `lengths` is (n,), or None if every row has one id; `weights` matches `values` or is None."""

    values: Int64s
    lengths: Int64s | None = None
    weights: Float32s | None = None

    def lengths_of(self, n: int) -> Int64s:
        """(n,) lengths, ones if there are none."""
        return np.ones(n, np.int64) if self.lengths is None else self.lengths


def one_array(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """The column as one array; no copy if it has one chunk."""
    if not isinstance(column, pa.ChunkedArray):
        return column
    if column.num_chunks == 1:
        return column.chunk(0)
    combined = column.combine_chunks()
    return combined if not isinstance(combined, pa.ChunkedArray) else pa.concat_arrays(combined.chunks)


def is_text(kind: pa.DataType) -> bool:
    """Whether a type holds strings or bytes, dictionary-encoded or not."""
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    checks = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_binary)
    return any(check(kind) for check in checks) or bool(pa.types.is_large_binary(kind))


def is_list(kind: pa.DataType) -> bool:
    """Whether a type is a list of any kind."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def feature_ids(feature: Feature, columns: dict[str, pa.Array], boundaries: Float64s | None) -> Ids:
    """The ids of a feature for the n rows of `columns`.

    Args:
        boundaries: of the quantile buckets, if the feature has `num_buckets`.

    Raises:
        BadRowsError: invalid UTF-8, a list that is too long, or weights that do not match.
        DataError: the column's type cannot be ids.
    """
    if feature.cross is not None:
        parts = [_column_ids(feature, name, columns[name], None) for name in feature.cross]
        return _last(feature, _crossed(parts, len(columns[feature.cross[0]])), feature.cross[0])
    assert feature.column is not None
    ids = _column_ids(feature, feature.column, columns[feature.column], boundaries)
    if feature.weights_column is not None:
        weights = _id_weights(feature, columns[feature.weights_column], ids, len(columns[feature.column]))
        ids = Ids(ids.values, ids.lengths, weights)
    ids = _without_null_ids(ids, columns[feature.column])
    return _last(feature, ids, feature.column)


def _column_ids(feature: Feature, name: str, array: pa.Array, boundaries: Float64s | None) -> Ids:
    if feature.split is not None:
        array = _split(array, feature.split, name)
    if is_list(array.type):
        lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False).astype(np.int64)
        # flatten() honours slices and leaves out what lies under null lists; no copy of the values.
        return Ids(_scalar_ids(feature, name, array.flatten()), lengths)
    values = _scalar_ids(feature, name, array, boundaries)
    if not array.null_count:
        return Ids(values)
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    if feature.null_id is not None:
        return Ids(np.where(valid, values, _null_id(feature, array.type)))
    return Ids(values[valid], valid.astype(np.int64))


def _scalar_ids(feature: Feature, name: str, array: pa.Array, boundaries: Float64s | None = None) -> Int64s:
    """(n,) int64 ids of a plain array; what lies under nulls is arbitrary."""
    if feature.timestamp_part is not None:
        return _timestamp_part(feature.timestamp_part, name, array)
    if boundaries is not None:
        numbers = as_float64(name, array, fill=0.0)
        return np.searchsorted(boundaries, numbers, side="right").astype(np.int64)
    return plain_ids(name, array, feature.name)


def plain_ids(name: str, array: pa.Array, feature: str | None = None) -> Int64s:
    """(n,) int64 ids of strings, integers, booleans or timestamps; what lies under nulls is arbitrary.

    Raises:
        BadRowsError: invalid UTF-8.
        DataError: the type cannot be ids.
    """
    kind = array.type
    if is_text(kind):
        check_utf8(name, array)
        return hash_strings(array)
    if pa.types.is_dictionary(kind):
        return plain_ids(name, array.dictionary_decode(), feature)
    if pa.types.is_null(kind):
        return np.zeros(len(array), np.int64)
    if pa.types.is_boolean(kind):
        array = array.cast(pa.int8())
    elif pa.types.is_timestamp(kind):
        return as_microseconds(EventTime(column=name), array)
    elif not pa.types.is_integer(kind):
        hint = "; cast it to an integer, or set num_buckets" if pa.types.is_floating(kind) else ""
        raise DataError(f"holds {kind}, which cannot be ids{hint}", feature=feature, column=name)
    if array.null_count:
        array = array.fill_null(0)
    numbers = array.to_numpy(zero_copy_only=False)
    ids: Int64s = numbers.view(np.int64) if numbers.dtype == np.uint64 else numbers.astype(np.int64, copy=False)
    return ids


def _null_id(feature: Feature, kind: pa.DataType) -> np.int64:
    if is_text(kind):
        return np.int64(hash_strings(pa.array([str(feature.null_id)]))[0])
    if not isinstance(feature.null_id, int):
        raise DataError(
            f"null_id {feature.null_id!r} is not an integer, but the column holds {kind}", feature=feature.name
        )
    return np.int64(feature.null_id)


def _split(array: pa.Array, separator: str, name: str) -> pa.Array:
    """Strings as lists of their non-empty pieces; a dictionary is split once a distinct value."""
    if not is_text(array.type):
        raise DataError(f"holds {array.type}; only strings can be split", column=name)
    if pa.types.is_dictionary(array.type):
        return _split(array.dictionary, separator, name).take(array.indices)
    check_utf8(name, array)
    lists = pc.split_pattern(array.cast(pa.large_string()), separator)
    pieces = lists.flatten()
    keep = pc.not_equal(pieces, "")
    if pc.all(keep).as_py() in (True, None) and not lists.null_count:
        return lists
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    rows = np.repeat(np.arange(len(lists)), lengths)[keep.to_numpy(zero_copy_only=False)]
    offsets = np.zeros(len(lists) + 1, np.int64)
    np.cumsum(np.bincount(rows, minlength=len(lists)), out=offsets[1:])
    return pa.LargeListArray.from_arrays(pa.array(offsets), pieces.filter(keep))


def _timestamp_part(part: str, name: str, array: pa.Array) -> Int64s:
    if not (pa.types.is_timestamp(array.type) or pa.types.is_date(array.type)):
        raise DataError(f"holds {array.type}; timestamp_part needs a timestamp", column=name)
    if part == "day_number":
        return as_microseconds(EventTime(column=name), array) // 86_400_000_000
    if pa.types.is_date(array.type):
        array = array.cast(pa.timestamp("s"))
    function = {"hour": pc.hour, "weekday": pc.day_of_week, "day": pc.day, "month": pc.month}[part]
    values: Int64s = pc.fill_null(function(array), 0).to_numpy(zero_copy_only=False)
    return values


def _without_null_ids(ids: Ids, array: pa.Array) -> Ids:
    """Drops nulls inside lists, with their weights."""
    if not is_list(array.type):
        return ids
    items = array.flatten()
    if not items.null_count:
        return ids
    valid = items.is_valid().to_numpy(zero_copy_only=False)
    lengths = ids.lengths_of(len(array))
    rows = np.repeat(np.arange(len(array)), lengths)[valid]
    weights = None if ids.weights is None else ids.weights[valid]
    return Ids(ids.values[valid], np.bincount(rows, minlength=len(array)).astype(np.int64), weights)


def _last(feature: Feature, ids: Ids, column: str) -> Ids:
    """The last `max_length` ids of every row."""
    if ids.lengths is None:
        return ids
    longest = int(ids.lengths.max(initial=0))
    if feature.max_length is None:
        if longest > MAX_IDS_PER_ROW:
            rows = np.flatnonzero(ids.lengths > MAX_IDS_PER_ROW)
            raise BadRowsError(
                f"holds a list of {longest:,} ids, more than {MAX_IDS_PER_ROW:,}; set max_length on feature "
                f"'{feature.name}' to keep the last ones",
                column,
                rows,
            )
        return ids
    if longest <= feature.max_length:
        return ids
    kept = np.minimum(ids.lengths, feature.max_length)
    ends = np.cumsum(ids.lengths)
    index = ranges(ends - kept, kept)
    return Ids(ids.values[index], kept, None if ids.weights is None else ids.weights[index])


def ranges(starts: Int64s, lengths: Int64s) -> Int64s:
    """The numbers start..start+length-1 of every pair, one after the other."""
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()))


def _id_weights(feature: Feature, array: pa.Array, ids: Ids, n: int) -> Float32s:
    """Per-id weights as float32, checked to match the ids row by row."""
    assert feature.weights_column is not None
    name = feature.weights_column
    if is_list(array.type):
        lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False).astype(np.int64)
        numbers = as_float64(name, array.flatten(), fill=None, of_rows=np.repeat(np.arange(n), lengths))
    else:
        lengths, numbers = np.ones(n, np.int64), as_float64(name, array, fill=None)
    wrong = np.flatnonzero(lengths != ids.lengths_of(n))
    if len(wrong):
        first = int(wrong[0])
        counts = f"{int(lengths[first])} weights for {int(ids.lengths_of(n)[first])} ids"
        raise BadRowsError(f"has {counts}; a weights column holds one number per id", name, wrong)
    return numbers.astype(np.float32)


def _crossed(parts: list[Ids], n: int) -> Ids:
    """Every combination of the parts' ids within a row."""
    if all(part.lengths is None for part in parts):
        return Ids(cross_ids(*(part.values for part in parts)))
    index = [np.arange(len(parts[0].values))]
    lengths = parts[0].lengths_of(n)
    for part in parts[1:]:
        other = part.lengths_of(n)
        rows = np.repeat(np.arange(n), lengths)
        repeats = other[rows]
        starts = (np.cumsum(other) - other)[rows]
        index = [np.repeat(i, repeats) for i in index]
        index.append(ranges(starts, repeats))
        lengths = lengths * other
    return Ids(cross_ids(*(part.values[i] for part, i in zip(parts, index, strict=True))), lengths)


def check_utf8(name: str, array: pa.Array) -> None:
    """Raises BadRowsError, with the rows, if strings are not UTF-8. (Parquet readers do not check.)"""
    if pa.types.is_dictionary(array.type):
        return _check_dictionary_utf8(name, array)
    if pa.types.is_binary(array.type) or pa.types.is_large_binary(array.type):
        return None
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        bad = [i for i, value in enumerate(_as_bytes(array)) if value is not None and not _is_utf8(value)]
        raise BadRowsError("holds bytes that are not UTF-8", name, np.array(bad, np.int64)) from None
    return None


def _check_dictionary_utf8(name: str, array: pa.DictionaryArray) -> None:
    try:
        check_utf8(name, array.dictionary)
    except BadRowsError as error:
        rows = np.flatnonzero(np.isin(array.indices.fill_null(-1).to_numpy(zero_copy_only=False), error.rows))
        if len(rows):
            raise BadRowsError(error.message, name, rows) from None


def _as_bytes(array: pa.Array) -> list[bytes | None]:
    kind = pa.large_binary() if pa.types.is_large_string(array.type) else pa.binary()
    values: list[bytes | None] = array.cast(kind).to_pylist()
    return values


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def as_float64(name: str, array: pa.Array, *, fill: float | None, of_rows: Int64s | None = None) -> Float64s:
    """(n,) finite float64 of a numeric or boolean array.

    Args:
        fill: stands for nulls; without it a null is a bad row.
        of_rows: the table row of each value, if they are not one to one.
    """
    kind = array.type
    if pa.types.is_dictionary(kind):
        return as_float64(name, array.dictionary_decode(), fill=fill, of_rows=of_rows)
    if pa.types.is_boolean(kind):
        array = array.cast(pa.int8())
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        raise DataError(f"holds {kind}; a number is needed", column=name)
    if array.null_count:
        if fill is None:
            _bad("is null", name, array.is_null().to_numpy(zero_copy_only=False), of_rows)
        array = array.cast(pa.float64(), safe=False).fill_null(fill)
    numbers: Float64s = array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    finite = np.isfinite(numbers)
    if not finite.all():
        _bad(f"holds {numbers[~finite][0]}, a finite number is needed", name, ~finite, of_rows)
    return numbers


def _bad(message: str, name: str, mask: Any, of_rows: Int64s | None) -> None:
    places = np.flatnonzero(mask)
    rows = places if of_rows is None else np.unique(of_rows[places])
    raise BadRowsError(message, name, rows)


def as_microseconds(event_time: EventTime, array: pa.Array) -> Int64s:
    """(n,) int64 microseconds since 1970 UTC of a timestamp, date, or integer column with a unit.

    Raises:
        BadRowsError: a null. DataError: another type, or integers without a unit.
    """
    name, kind = event_time.column, array.type
    if array.null_count:
        _bad("is null; every row needs an event time", name, array.is_null().to_numpy(zero_copy_only=False), None)
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        micros = array.cast(pa.timestamp("us", tz=getattr(kind, "tz", None)), safe=False)
        stamps: Int64s = micros.cast(pa.int64()).to_numpy(zero_copy_only=False)
        return stamps
    if not pa.types.is_integer(kind):
        raise DataError(f"holds {kind}; event times are timestamps or integers", column=name)
    if event_time.unit is None:
        raise DataError("holds integers; give their unit, event_time: {column, unit: s|ms|us|ns}", column=name)
    numbers: Int64s = array.cast(pa.int64()).to_numpy(zero_copy_only=False)
    if event_time.unit == "ns":
        return numbers // 1000
    factor = _UNIT_TO_US[event_time.unit]
    beyond = np.abs(numbers) > (2**63 - 1) // factor
    if beyond.any():
        _bad(f"holds {numbers[beyond][0]} {event_time.unit}, which is beyond the range of times", name, beyond, None)
    return numbers * factor

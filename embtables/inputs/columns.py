"""The ids of a feature: Arrow columns as jagged int64 arrays.

A value that has no meaning is reported as `BadRowsError`, with all rows of the table that share the fault, also where
the value lies inside a list.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embtables.arrow.types import is_bytes, is_list, is_text
from embtables.errors import DataError
from embtables.ids.cross import cross_ids
from embtables.ids.strings import hash_strings, split_strings
from embtables.inputs.times import is_time, microseconds, timestamp_part
from embtables.inputs.values import (
    BadRowsError,
    Float32s,
    Float64s,
    Int64s,
    Mask,
    as_float64,
    decimal_words,
    to_float32,
)
from embtables.schema import Feature

MAX_IDS_PER_ROW = 65_536
_INTEGER = re.compile(r"[+-]?[0-9]{1,20}")


@dataclass(frozen=True, slots=True)
class Ids:
    """Ids of n rows: `lengths` is (n,), or None if every row has one id; `weights` matches `values` or is None."""

    values: Int64s
    lengths: Int64s | None = None
    weights: Float32s | None = None

    def lengths_of(self, n: int) -> Int64s:
        """(n,) lengths, ones if there are none."""
        return np.ones(n, np.int64) if self.lengths is None else self.lengths


def feature_ids(feature: Feature, columns: Mapping[str, pa.Array], boundaries: Float64s | None) -> Ids:
    """The ids of a feature for the n rows of `columns`, which have plain types.

    Args:
        boundaries: of the quantile buckets, if the feature has `num_buckets`.

    Raises:
        BadRowsError: invalid UTF-8, a list that is too long, or weights that do not match.
        DataError: the column's type cannot be ids.
    """
    if feature.cross is not None:
        parts = [column_ids(feature, name, columns[name]) for name in feature.cross]
        return crossed(feature, parts, len(columns[feature.cross[0]]))
    assert feature.column is not None
    weights = None if feature.weights_column is None else columns[feature.weights_column]
    ids = _column_ids(feature, feature.column, columns[feature.column], weights, boundaries)
    return _last(feature, ids, feature.column)


def column_ids(feature: Feature, name: str, array: pa.Array) -> Ids:
    """The ids of one column of a cross. Raises as `feature_ids`."""
    return _column_ids(feature, name, array, None, None)


def _column_ids(
    feature: Feature, name: str, array: pa.Array, weights: pa.Array | None, boundaries: Float64s | None
) -> Ids:
    if feature.split is not None:
        array = _split(array, feature.split, name)
    if is_list(array.type):
        return _list_ids(feature, name, array, weights, boundaries)
    values = _scalar_ids(feature, name, array, boundaries)
    of_ids = None if weights is None else _id_weights(feature, weights, np.ones(len(array), np.int64), array.is_null())
    if not array.null_count:
        return Ids(values, None, of_ids)
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    if feature.null_id is not None:
        return Ids(np.where(valid, values, _null_id(feature, name, array.type)), None, of_ids)
    return Ids(values[valid], valid.astype(np.int64), None if of_ids is None else of_ids[valid])


def _list_ids(
    feature: Feature, name: str, array: pa.Array, weights: pa.Array | None, boundaries: Float64s | None
) -> Ids:
    """Ids of lists: nulls inside them are dropped with their weights; a null list is empty, or the null id."""
    n = len(array)
    lengths = list_lengths(array)
    # flatten() honours slices and leaves out what lies under null lists; no copy of the values.
    items = array.flatten()
    if boundaries is not None:
        raise DataError(f"holds {array.type}; num_buckets needs one number a row", feature=feature.name, column=name)
    try:
        values = _scalar_ids(feature, name, items)
    except BadRowsError as error:
        raise BadRowsError(error.message, name, np.unique(np.repeat(np.arange(n), lengths)[error.rows])) from None
    of_ids = None if weights is None else _id_weights(feature, weights, lengths, items.is_null())
    if items.null_count:
        valid = items.is_valid().to_numpy(zero_copy_only=False)
        rows = np.repeat(np.arange(n), lengths)[valid]
        values, of_ids = values[valid], None if of_ids is None else of_ids[valid]
        lengths = np.bincount(rows, minlength=n).astype(np.int64)
    if array.null_count and feature.null_id is not None:
        missing = array.is_null().to_numpy(zero_copy_only=False)
        return _with_null_ids(Ids(values, lengths, of_ids), missing, _null_id(feature, name, items.type))
    return Ids(values, lengths, of_ids)


def _with_null_ids(ids: Ids, missing: Mask, null_id: np.int64) -> Ids:
    """One id, of weight one, for every row that is missing."""
    lengths = ids.lengths_of(len(missing)) + missing
    before = np.cumsum(lengths) - lengths
    places = before[missing]
    values = np.empty(int(lengths.sum()), np.int64)
    other = np.ones(len(values), np.bool_)
    other[places] = False
    values[places], values[other] = null_id, ids.values
    if ids.weights is None:
        return Ids(values, lengths)
    weights = np.ones(len(values), np.float32)
    weights[other] = ids.weights
    return Ids(values, lengths, weights)


def list_lengths(array: pa.Array) -> Int64s:
    """(n,) lengths of lists, 0 of null ones."""
    lengths = pc.list_value_length(array)
    lengths = lengths.fill_null(0) if lengths.null_count else lengths
    found: Int64s = lengths.to_numpy(zero_copy_only=False).astype(np.int64, copy=False)
    return found


def _scalar_ids(feature: Feature, name: str, array: pa.Array, boundaries: Float64s | None = None) -> Int64s:
    """(n,) int64 ids of a plain array; what lies under nulls is arbitrary."""
    if feature.timestamp_part is not None:
        return timestamp_part(feature, name, array)
    if boundaries is not None:
        numbers = as_float64(name, array, fill=0.0)
        return np.searchsorted(boundaries, numbers, side="right").astype(np.int64)
    return plain_ids(name, array, feature.name)


def plain_ids(name: str, array: pa.Array, feature: str | None = None) -> Int64s:
    """(n,) int64 ids of an array of a plain type; what lies under nulls is arbitrary.

    Strings and bytes are hashed; booleans are 0 and 1; times and dates are microseconds since 1970 UTC; unsigned
    integers and decimals without a fraction keep their lowest 64 bits.

    Raises:
        BadRowsError: invalid UTF-8, or a time or decimal beyond 64 bits.
        DataError: the type cannot be ids.
    """
    kind = array.type
    if is_text(kind):
        check_utf8(name, array)
        return hash_strings(array)
    if pa.types.is_null(kind):
        return np.zeros(len(array), np.int64)
    if is_time(kind):
        return microseconds(name, array)
    if pa.types.is_decimal(kind) and kind.scale == 0:
        return _decimal_ids(name, array)
    if pa.types.is_boolean(kind):
        array = array.cast(pa.int8())
    elif not pa.types.is_integer(kind):
        hint = "; cast it to an integer, or set num_buckets" if _is_fraction(kind) else ""
        raise DataError(f"holds {kind}, which cannot be ids{hint}", feature=feature, column=name)
    if array.null_count:
        array = array.fill_null(0)
    numbers = array.to_numpy(zero_copy_only=False)
    ids: Int64s = numbers.view(np.int64) if numbers.dtype == np.uint64 else numbers.astype(np.int64, copy=False)
    return ids


def _is_fraction(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _decimal_ids(name: str, array: pa.Array) -> Int64s:
    """The lowest 64 bits of decimals of scale 0. Raises BadRowsError for what is beyond int64 and uint64."""
    ids, is_signed, is_unsigned = decimal_words(array)
    fits = is_signed | is_unsigned
    if not fits.all():
        rows = np.flatnonzero(~fits)
        raise BadRowsError(f"holds {array[int(rows[0])].as_py()}, which has more than 64 bits", name, rows)
    return ids


def _null_id(feature: Feature, name: str, kind: pa.DataType) -> np.int64:
    value = feature.null_id
    if is_text(kind):
        return np.int64(hash_strings(pa.array([str(value)]))[0])
    number = int(str(value)) if _INTEGER.fullmatch(str(value)) else None
    if number is None or not -(2**63) <= number < 2**64:
        raise DataError(
            f"null_id {value!r} is not an integer, but the column holds {kind}", feature=feature.name, column=name
        )
    return np.int64(number if number < 2**63 else number - 2**64)


def _split(array: pa.Array, separator: str, name: str) -> pa.Array:
    """Strings as lists of their non-empty pieces, nulls as null lists; a dictionary is split once a distinct value."""
    if pa.types.is_null(array.type):
        return array.cast(pa.large_list(pa.large_string()))
    if not is_text(array.type):
        raise DataError(f"holds {array.type}; only strings can be split", column=name)
    check_utf8(name, array)
    if pa.types.is_dictionary(array.type):
        try:
            return _split(array.dictionary, separator, name).take(array.indices)
        except BadRowsError:
            # Values that no row has, or bytes: what is bad is known by rows only.
            return _split(array.cast(array.type.value_type), separator, name)
    if is_bytes(array.type):
        array = _as_text(array, name)
    missing = array.is_null() if array.null_count else None
    pieces, starts = split_strings(array if missing is None else array.fill_null(""), separator)
    return pa.LargeListArray.from_arrays(pa.array(starts), pieces, mask=missing)


def _as_text(array: pa.Array, name: str) -> pa.Array:
    """Bytes as the text that they are. Raises BadRowsError, with the rows, where they are not UTF-8."""
    wide = array.cast(pa.large_binary()).view(pa.large_string())
    check_utf8(name, wide)
    return wide


def _last(feature: Feature, ids: Ids, column: str) -> Ids:
    """The last `max_length` ids of every row."""
    if ids.lengths is None:
        return ids
    longest = int(ids.lengths.max(initial=0))
    if feature.max_length is None:
        _need_short(feature, ids.lengths, column)
        return ids
    if longest <= feature.max_length:
        return ids
    kept = np.minimum(ids.lengths, feature.max_length)
    ends = np.cumsum(ids.lengths)
    index = ranges(ends - kept, kept)
    return Ids(ids.values[index], kept, None if ids.weights is None else ids.weights[index])


def _need_short(feature: Feature, lengths: Int64s, column: str) -> None:
    longest = int(lengths.max(initial=0))
    if longest > MAX_IDS_PER_ROW:
        raise BadRowsError(
            f"holds a list of {longest:,} ids, more than {MAX_IDS_PER_ROW:,}; set max_length on feature "
            f"'{feature.name}' to keep the last ones",
            column,
            np.flatnonzero(lengths > MAX_IDS_PER_ROW),
        )


def ranges(starts: Int64s, lengths: Int64s) -> Int64s:
    """The numbers start..start+length-1 of every pair, one after the other."""
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()))


def _id_weights(feature: Feature, array: pa.Array, of_ids: Int64s, null_ids: pa.Array) -> Float32s:
    """Per-id weights as float32, checked to match the ids row by row.

    Args:
        of_ids: (n,) how many ids each row has, nulls included.
        null_ids: which ids are null: their weights are dropped with them, and may be null as well.
    """
    assert feature.weights_column is not None
    name = feature.weights_column
    if is_list(array.type):
        lengths, numbers = list_lengths(array), array.flatten()
    else:
        lengths, numbers = np.ones(len(array), np.int64), array
    wrong = np.flatnonzero(lengths != of_ids)
    if len(wrong):
        first = int(wrong[0])
        counts = f"{int(lengths[first])} weights for {int(of_ids[first])} ids"
        raise BadRowsError(f"has {counts}; a weights column holds one number per id", name, wrong)
    rows = np.repeat(np.arange(len(array)), lengths)
    if pa.types.is_null(numbers.type):
        numbers = numbers.cast(pa.float32())
    if numbers.null_count and pc.any(null_ids).as_py():
        numbers = pc.if_else(pc.and_(null_ids, numbers.is_null()), pa.scalar(0, numbers.type), numbers)
    return to_float32(name, as_float64(name, numbers, fill=None, of_rows=rows), of_rows=rows)


def crossed(feature: Feature, parts: Sequence[Ids], n: int) -> Ids:
    """Every combination of the parts' ids in a row, the last `max_length` of them; the last part changes fastest."""
    assert feature.cross is not None
    if all(part.lengths is None for part in parts):
        return Ids(cross_ids(*(part.values for part in parts)))
    lengths = [part.lengths_of(n) for part in parts]
    # Before anything is made: the combinations of a few lists are more than fit into memory, or into 64 bits.
    total = np.ones(n, np.float64)
    for each in lengths:
        total *= each
    if feature.max_length is None:
        _need_short(feature, np.minimum(total, 2**62).astype(np.int64), feature.cross[0])
    elif (total > 2**62).any():
        rows = np.flatnonzero(total > 2**62)
        raise BadRowsError("holds lists whose combinations are beyond 64 bits", feature.cross[0], rows)
    whole = total.astype(np.int64)
    if (total >= 2**53).any():
        whole = np.prod(np.stack(lengths), axis=0)
    kept = whole if feature.max_length is None else np.minimum(whole, feature.max_length)
    rows = np.repeat(np.arange(n), kept)
    number = ranges(whole - kept, kept)
    columns = []
    for part, each in zip(reversed(parts), reversed(lengths), strict=True):
        starts = (np.cumsum(each) - each)[rows]
        columns.append(part.values[starts + number % np.maximum(each[rows], 1)])
        number = number // np.maximum(each[rows], 1)
    return Ids(cross_ids(*reversed(columns)), kept)


def check_utf8(name: str, array: pa.Array) -> None:
    """Raises BadRowsError, with the rows, if strings are not UTF-8. (Parquet readers do not check.)"""
    if is_bytes(array.type):
        return None
    if pa.types.is_dictionary(array.type):
        return _check_dictionary_utf8(name, array)
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

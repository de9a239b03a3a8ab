"""Keys of a join, made comparable: the log's and the side table's may differ in width, unit and encoding.

The rule is that of ids, without the hash: integers are compared as 64 bits (so uint64 meets int64 by its bits), bool
and decimals without a fraction as integers, strings and bytes by their bytes, dates and timestamps as microseconds
since 1970 UTC. A null key is equal to no key.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from embtables.errors import DataError
from embtables.inputs.arrow_types import is_text, plain, plain_type

KeyFamily = Literal["integer", "text", "time", "null"]


@dataclass(frozen=True, slots=True)
class Keys:
    """n keys: `values` are (n,) int64 or large_binary, null where there is no key; `shown` the same as they were."""

    family: KeyFamily
    values: pa.Array
    shown: tuple[pa.ChunkedArray, ...]

    def example(self, place: int) -> str:
        """A key for an error message."""
        for part in self.shown:
            if place < len(part):
                break
            place -= len(part)
        value = part[place]
        try:
            return repr(value.as_py())
        except (ValueError, OverflowError):  # a time that Python has no date for
            return str(value.cast(pa.int64()))

    @property
    def kind(self) -> pa.DataType:
        """The type of the column, or of its first part that is not all null."""
        return next((s.type for s in self.shown if not pa.types.is_null(s.type)), pa.null())


def key_family(kind: pa.DataType) -> KeyFamily | None:
    """What a column of type `kind` is compared as; None: it cannot be a key."""
    kind = plain_type(kind)
    if is_text(kind):
        return "text"
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return "integer"
    if pa.types.is_decimal(kind):
        return "integer" if kind.scale == 0 else None
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return "time"
    return "null" if pa.types.is_null(kind) else None


def checked_family(kind: pa.DataType, /, **path: object) -> KeyFamily:
    """The family of a key column. Raises DataError, with `path`, if the type cannot be a key."""
    family = key_family(kind)
    if family is None:
        hint = "; cast it to an integer" if pa.types.is_floating(kind) else ""
        raise DataError(f"holds {kind}, which cannot be the key of a join{hint}", **path)
    return family


def keys_of(parts: Sequence[pa.ChunkedArray], /, **path: object) -> Keys:
    """The keys of a column whose parts may be of different types of one family.

    Raises:
        DataError: the type or a value cannot be a key; with `path`.
    """
    families = [checked_family(part.type, **path) for part in parts]
    family: KeyFamily = next((f for f in families if f != "null"), "null")
    shown = tuple(plain(part) for part in parts)
    kind = pa.large_binary() if family == "text" else pa.int64()
    try:
        chunks = [_comparable(chunk).cast(kind) for part in shown for chunk in part.chunks]
    except pa.ArrowInvalid as error:
        raise DataError(f"holds a key that cannot be compared: {error}", **path) from error
    return Keys(family, pa.chunked_array(chunks, kind).combine_chunks(), shown)


def _comparable(array: pa.Array) -> pa.Array:
    kind = array.type
    if pa.types.is_null(kind):
        return array
    if pa.types.is_dictionary(kind):
        return array.cast(kind.value_type).cast(pa.large_binary())
    if is_text(kind):
        return array.cast(pa.large_binary())
    if pa.types.is_decimal(kind):
        return _of_decimals(array)
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return array.cast(pa.timestamp("us", getattr(kind, "tz", None))).cast(pa.int64())
    return array.view(pa.int64()) if pa.types.is_uint64(kind) else array.cast(pa.int64())


def _of_decimals(array: pa.Array) -> pa.Array:
    try:
        return array.cast(pa.int64())
    except pa.ArrowInvalid:
        return array.cast(pa.uint64()).view(pa.int64())


def places_of(wanted: Keys, among: Keys) -> Any:
    """(n,) where each key of `wanted` is in `among`; null where it is not, and of a null key."""
    values = wanted.values
    if "null" in (wanted.family, among.family):
        return pa.nulls(len(values), pa.int32())
    return pc.index_in(values, value_set=among.values, skip_nulls=True)

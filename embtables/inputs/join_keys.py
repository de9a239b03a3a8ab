"""Keys of a join, made comparable: the log's and the side table's may differ in width, unit and encoding.

The rule is that of ids, without the hash: integers are compared as 64 bits (so uint64 meets int64 by its bits), bool
and decimals without a fraction as integers, strings and bytes by their bytes, dates and timestamps as microseconds
since 1970 UTC. A null key is equal to no key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from embtables.arrow.types import is_text, plain_type
from embtables.errors import DataError
from embtables.inputs.columns import plain_ids
from embtables.inputs.values import BadRowsError, one_array

KeyFamily = Literal["integer", "text", "time", "null"]


@dataclass(frozen=True, slots=True)
class Keys:
    """n keys: `values` are (n,) int64 or large_binary, null where there is no key; `shown` the same as they were."""

    family: KeyFamily
    values: pa.Array
    shown: pa.Array

    def example(self, place: int) -> str:
        """A key for an error message."""
        value = self.shown[place]
        try:
            return repr(value.as_py())
        except (ValueError, OverflowError):  # a time that Python has no date for
            return str(value.cast(pa.int64()))

    @property
    def kind(self) -> pa.DataType:
        """The type of the column."""
        return self.shown.type


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


def keys_of(column: pa.ChunkedArray, /, **path: object) -> Keys:
    """The keys of a column.

    Raises:
        DataError: the type or a value cannot be a key; with `path`.
    """
    family = checked_family(column.type, **path)
    shown = one_array(column)
    if family == "text":
        values = shown.cast(shown.type.value_type) if pa.types.is_dictionary(shown.type) else shown
        return Keys(family, values.cast(pa.large_binary()), shown)
    if family == "null":
        return Keys(family, pa.nulls(len(shown), pa.int64()), shown)
    if pa.types.is_timestamp(shown.type) and shown.type.unit == "ns":
        _need_whole_microseconds(shown, path)
    try:
        ids = plain_ids("", shown)
    except BadRowsError as error:
        raise DataError(f"{error.message}, which cannot be the key of a join", **path) from None
    missing = shown.is_null().to_numpy(zero_copy_only=False) if shown.null_count else None
    return Keys(family, pa.array(ids, mask=missing), shown)


def _need_whole_microseconds(shown: pa.Array, path: Mapping[str, object]) -> None:
    """Two keys that differ in nanoseconds only would become one."""
    rest = shown.drop_null().cast(pa.int64()).to_numpy() % 1_000
    if rest.any():
        raise DataError("holds times with nanoseconds; keys are compared as microseconds", **path)


def places_of(wanted: Keys, among: Keys) -> Any:
    """(n,) where each key of `wanted` is in `among`; null where it is not, and of a null key."""
    values = wanted.values
    if "null" in (wanted.family, among.family):
        return pa.nulls(len(values), pa.int32())
    return pc.index_in(values, value_set=among.values, skip_nulls=True)

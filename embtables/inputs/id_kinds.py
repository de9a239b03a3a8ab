"""What the ids of a column are made of.

The same value as text and as a number is two ids: a server that is sent the one where training read the other would
find rows of none of them.
"""

from __future__ import annotations

from typing import Literal

import pyarrow as pa

from embtables.arrow.types import is_list
from embtables.schema import Schema

IdKind = Literal["strings", "integers", "times"]


def id_kind(kind: pa.DataType) -> IdKind | None:
    """Of a column of this type; a null column has none."""
    if pa.types.is_null(kind):
        return None
    if pa.types.is_dictionary(kind) or is_list(kind):
        return id_kind(kind.value_type)
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_decimal(kind):
        return "integers"
    return "times" if pa.types.is_temporal(kind) else "strings"


def id_kinds(schema: Schema, table: pa.Table) -> dict[str, str]:
    """By column that features read ids of; without null columns."""
    found: dict[str, str] = {}
    for feature in schema.features:
        if feature.num_buckets is None and feature.timestamp_part is None:
            for column in feature.columns:
                kind = id_kind(table.schema.field(column).type)
                if kind is not None:
                    found[column] = kind
    return found

"""`data.where`: conditions over Arrow columns. A null satisfies nothing but `is null`."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embtables.errors import ConfigError
from embtables.inputs.columns import is_text
from embtables.schema import Condition

Mask = npt.NDArray[np.bool_]
_COMPARE = {
    "==": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}


def condition_mask(table: pa.Table, conditions: Iterable[Condition]) -> Mask:
    """(n,) which rows satisfy all conditions. Raises ConfigError if a value does not fit its column."""
    mask = np.ones(table.num_rows, np.bool_)
    for condition in conditions:
        mask &= _one(table.column(condition.column), condition)
    return mask


def _one(column: pa.ChunkedArray, condition: Condition) -> Mask:
    if condition.op in ("is null", "is not null"):
        found = column.is_null() if condition.op == "is null" else column.is_valid()
        return _mask(found)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if condition.op in ("in", "not in"):
        assert isinstance(condition.value, tuple)
        column, values = _fit(column, list(condition.value), condition)
        found = pc.is_in(column, value_set=values)
        found = pc.invert(found) if condition.op == "not in" else found
        return _mask(pc.and_(found, column.is_valid()))
    column, values = _fit(column, [condition.value], condition)
    return _mask(_COMPARE[condition.op](column, values[0]))


def _mask(found: Any) -> Mask:
    mask: Mask = pc.fill_null(found, False).to_numpy()
    return mask.astype(np.bool_)


def _fit(column: pa.ChunkedArray, values: list[Any], condition: Condition) -> tuple[pa.ChunkedArray, pa.Array]:
    """The column and the values in one type: the column's, or float64 where an integer column meets a fraction."""
    kind = column.type
    if is_text(kind):
        values = [v.isoformat() if isinstance(v, datetime) else str(v) for v in values]
    elif pa.types.is_integer(kind) and any(isinstance(v, float) and not v.is_integer() for v in values):
        column, kind = column.cast(pa.float64()), pa.float64()
    elif pa.types.is_timestamp(kind):
        values = [datetime.fromisoformat(v) if isinstance(v, str) else v for v in values]
    try:
        return column, pa.array(values).cast(kind)
    except (pa.ArrowException, ValueError, TypeError) as error:
        shown = condition.value if condition.op not in ("in", "not in") else values
        raise ConfigError(f"{shown!r} cannot be compared with {kind}", condition=condition.column) from error

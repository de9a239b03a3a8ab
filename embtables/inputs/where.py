"""`data.where`: conditions over Arrow columns. A null satisfies nothing but `is null`."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embtables.arrow.types import is_text, take_column
from embtables.errors import ConfigError
from embtables.inputs.literals import UnreadableLiteralError, read_literal
from embtables.inputs.values import Mask, one_array
from embtables.schema import Condition

_ARROW = {
    "==": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}
_NUMPY: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def condition_mask(table: pa.Table, conditions: Iterable[Condition]) -> Mask:
    """(n,) which rows satisfy all conditions.

    Raises:
        ConfigError: there is no such column, or its type is not one that the value can be compared with.
    """
    mask = np.ones(table.num_rows, np.bool_)
    for condition in conditions:
        column = take_column(table, condition.column)
        if column is None:
            raise ConfigError(f"data.where names column '{condition.column}', which is not in the log")
        mask &= _one(one_array(column), condition)
    return mask


def _one(array: pa.Array, condition: Condition) -> Mask:
    if condition.op in ("is null", "is not null"):
        found = array.is_null() if condition.op == "is null" else array.is_valid()
        return _mask(found)
    negated = condition.op == "not in"
    values = condition.value if isinstance(condition.value, tuple) else (condition.value or "",)
    op = "==" if condition.op in ("in", "not in") else condition.op
    found_any = np.zeros(len(array), np.bool_)
    for text in values:
        found_any |= matches(array, op, text, condition.column)
    return (~found_any & _mask(array.is_valid())) if negated else found_any


def matches(array: pa.Array, op: str, text: str, column: str) -> Mask:
    """(n,) which values of an array compare so with a literal; a null never does.

    Raises:
        ConfigError: the literal is none of the array's type.
    """
    kind = array.type
    if pa.types.is_null(kind):
        return np.zeros(len(array), np.bool_)
    try:
        literal = read_literal(text, kind)
    except UnreadableLiteralError as error:
        raise ConfigError(f"'{text}' cannot be compared with {kind}: {error}", condition=column) from error
    if pa.types.is_dictionary(kind):
        of_values = pa.array(matches(array.dictionary, op, text, column))
        return _mask(of_values.take(array.indices))
    if is_text(kind) or pa.types.is_boolean(kind):
        return _mask(_ARROW[op](array, pa.scalar(literal, kind)))
    if pa.types.is_decimal(kind):
        return _decimals(array, op, literal)
    valid = _mask(array.is_valid())
    if pa.types.is_floating(kind):
        numbers = array.fill_null(0).to_numpy(zero_copy_only=False) if array.null_count else array.to_numpy()
        # In the column's own precision: 0.1 equals a float32 of 0.1.
        with np.errstate(over="ignore"):
            found: Mask = _NUMPY[op](numbers, numbers.dtype.type(literal))
        return found & valid
    return _integers(_stored_integers(array), op, literal) & valid


def _mask(found: Any) -> Mask:
    mask: Mask = pc.fill_null(found, False).to_numpy(zero_copy_only=False)
    return mask.astype(np.bool_)


def _stored_integers(array: pa.Array) -> Any:
    """Integers, timestamps or dates as the integers they are stored as; what lies under nulls is arbitrary."""
    if not pa.types.is_integer(array.type):
        array = array.cast(pa.int32() if pa.types.is_date32(array.type) else pa.int64())
    return (array.fill_null(0) if array.null_count else array).to_numpy(zero_copy_only=False)


def _integers(values: Any, op: str, literal: Fraction) -> Mask:
    """Compares exactly, also with a fraction or beyond what the type holds."""
    info = np.iinfo(values.dtype)
    bound, outcome = _bound(op, literal, int(info.min), int(info.max))
    if outcome is not None:
        return np.full(len(values), outcome)
    found: Mask = _NUMPY[op](values, values.dtype.type(bound))
    return found


def _decimals(array: pa.Array, op: str, literal: Fraction) -> Mask:
    kind = array.type
    largest = 10**kind.precision - 1
    bound, outcome = _bound(op, literal, -largest, largest)
    if outcome is not None:
        return _mask(array.is_valid()) & outcome
    # From its digits, because Decimal's arithmetic rounds to the context's precision.
    digits = Decimal((int(bound < 0), tuple(int(d) for d in str(abs(bound))), -kind.scale))
    return _mask(_ARROW[op](array, pa.scalar(digits, kind)))


def _bound(op: str, literal: Fraction, low: int, high: int) -> tuple[int, bool | None]:
    """The integer within low..high that stands for the literal, or the outcome if it is the same for all of them."""
    if op in ("==", "!="):
        if literal.denominator != 1 or not low <= literal <= high:
            return 0, op == "!="
        return int(literal), None
    # x < 1.5 means x < 2, x <= 1.5 means x <= 1; so for > and >=, the other way round.
    bound = math.ceil(literal) if op in ("<", ">=") else math.floor(literal)
    below = op in ("<", "<=")
    if bound > high:
        return 0, below
    if bound < low:
        return 0, not below
    return bound, None

"""Conditions beside the package's: a literal is text that is read by the family of the column."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

from tests.fuzz.oracle.values import Column, Unreadable, instant

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_TIME = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d)?(Z|[+-]\d\d:\d\d)?)?")


def condition(text: str) -> tuple[str, str, list[str]]:
    """A condition of the configuration as column, operator and literals; quotes are taken off."""
    found = re.fullmatch(r"(\S+) (==|!=|<=|>=|<|>|not in|in|is not null|is null) ?(.*)", text)
    assert found is not None, text
    name, op, rest = found.groups()
    texts = rest[1:-1].split(", ") if op in ("in", "not in") else [rest]
    return name, op, [each[1:-1] if each[:1] in ("'", '"') else each for each in texts]


def admits(text: str, column: Column) -> list[bool]:
    """Of each value, whether it satisfies a condition."""
    _, op, texts = condition(text)
    if op.startswith("is"):
        return [(value is None) == (op == "is null") for value in column.values]
    if column.family == "null":
        return [False] * len(column.values)
    others = [literal_value(column.family, each) for each in texts]
    compare = _OPERATORS.get(op, operator.eq)

    def holds(value: Any) -> bool:
        if value is None:
            return False
        found = any(compare(*_pair(column.family, value, other)) for other in others)
        return found != (op == "not in")

    return [holds(value) for value in column.values]


def literal_value(family: str, text: str) -> Any:
    """What a literal means beside a column of a family."""
    if family in ("text", "bytes"):
        return text.encode()
    if family == "bool":
        if text.lower() not in ("true", "false", "1", "0"):
            raise Unreadable(f"{text} is neither true nor false")
        return int(text.lower() in ("true", "1"))
    if family == "time":
        if not _TIME.fullmatch(text):
            raise Unreadable(f"{text} is no time")
        return instant(text)
    if family == "float" and text.lower() in ("inf", "-inf", "nan"):
        return float(text)
    if family in ("int", "decimal", "fraction", "float"):
        if not re.fullmatch(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?", text):
            raise Unreadable(f"{text} is no number")
        return float(text) if family == "float" else Fraction(Decimal(text))
    raise Unreadable(f"nothing is compared with {family}")


def _pair(family: str, value: Any, other: Any) -> tuple[Any, Any]:
    if family == "float":
        return float(value), other
    if family in ("int", "decimal", "fraction"):
        return Fraction(value if isinstance(value, int) else Decimal(value)), other
    return value, other


def same(column: Column, text: str) -> list[bool]:
    """Of each value, whether it is what a literal of a column split says; nulls and NaN are nothing."""
    if column.family == "null":
        return [False] * len(column.values)
    other = literal_value(column.family, text)
    return [v is not None and not _is_nan(v) and operator.eq(*_pair(column.family, v, other)) for v in column.values]


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def str_of(value: Any) -> str:
    """A value of the YAML as the text of a literal."""
    return str(value).lower() if isinstance(value, bool) else str(value)

"""Literals of a configuration (conditions, parts of a column split, hive folders), read by the type of their column.

A literal is text. What it means is said by the column that it is compared with, never by its looks: `01234` is that
text beside strings and 1234 beside integers, `NO` is never false, `2024-01-02` is midnight UTC beside times.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any

import pyarrow as pa

from embtables.arrow.types import is_bytes, is_text

_INTEGER = re.compile(r"[+-]?[0-9]{1,400}")
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")
_FLOAT = re.compile(r"[+-]?(inf|infinity|nan)", re.IGNORECASE)
_TIME = re.compile(
    r"(?P<day>\d{4}-\d\d-\d\d)"
    r"([T ](?P<clock>\d\d:\d\d(:\d\d)?)(\.(?P<fraction>\d{1,9}))? ?(?P<zone>Z|[+-]\d\d:?\d\d)?)?"
)
_DAY_NS = 86_400_000_000_000
UNIT_NS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}


class UnreadableLiteralError(ValueError):
    """A literal that its column's type cannot be compared with; says what is needed."""


def read_integer(text: str) -> int:
    """A decimal integer."""
    if not _INTEGER.fullmatch(text):
        raise UnreadableLiteralError("an integer is needed")
    return int(text)


def read_number(text: str) -> Fraction:
    """A decimal number, exactly."""
    if not _NUMBER.fullmatch(text):
        raise UnreadableLiteralError("a number is needed")
    try:
        return Fraction(Decimal(text))
    except (InvalidOperation, ValueError, OverflowError) as error:
        raise UnreadableLiteralError("a number is needed") from error


def read_float(text: str) -> float:
    """A decimal number, `nan`, or `inf`."""
    return float(text) if _FLOAT.fullmatch(text) else float(read_number(text))


def read_boolean(text: str) -> bool:
    """`true` or `1`, `false` or `0`."""
    if text.lower() not in ("true", "false", "1", "0"):
        raise UnreadableLiteralError("true or false is needed")
    return text.lower() in ("true", "1")


def read_nanoseconds(text: str) -> int:
    """Nanoseconds since 1970 UTC of an ISO date or time; a time without a zone is UTC."""
    found = _TIME.fullmatch(text)
    if not found:
        raise UnreadableLiteralError("a date or time is needed, such as 2024-01-31 or 2024-01-31T12:00:00+01:00")
    try:
        day = (date.fromisoformat(found["day"]) - date(1970, 1, 1)).days
        total = day * _DAY_NS + int((found["fraction"] or "").ljust(9, "0"))
        if found["clock"]:
            total += _clock_ns(found["clock"], (found["zone"] or "Z").replace("Z", "+00:00"))
    except ValueError as error:
        raise UnreadableLiteralError(f"there is no such time ({error})") from error
    return total


def _clock_ns(clock: str, zone: str) -> int:
    moment = datetime.fromisoformat(f"1970-01-02T{clock}{zone}")
    return round((moment - datetime(1970, 1, 2, tzinfo=UTC)).total_seconds()) * 1_000_000_000


def read_literal(text: str, kind: pa.DataType) -> Any:
    """A literal as it is compared with a column of a plain type.

    Returns:
        str or bytes for text, bool, float for floats; of integers, decimals, times and dates a Fraction of what one
        unit of their stored integers is: 1, 10^-scale, the timestamp's unit, a day.

    Raises:
        UnreadableLiteralError: it is no literal of that type, or nothing is compared with the type.
    """
    if pa.types.is_dictionary(kind):
        return read_literal(text, kind.value_type)
    if is_text(kind):
        return text.encode() if is_bytes(kind) else text
    if pa.types.is_boolean(kind):
        return read_boolean(text)
    if pa.types.is_integer(kind):
        return read_number(text)
    if pa.types.is_floating(kind):
        return read_float(text)
    if pa.types.is_decimal(kind):
        return read_number(text) * 10**kind.scale
    if pa.types.is_timestamp(kind):
        return Fraction(read_nanoseconds(text), UNIT_NS[kind.unit])
    if pa.types.is_date32(kind):
        return Fraction(read_nanoseconds(text), _DAY_NS)
    raise UnreadableLiteralError("nothing is compared with that type")

"""Literals are read by the type of their column, and comparisons are exact: against plain Python numbers."""

from __future__ import annotations

import operator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embtables.errors import ConfigError
from embtables.inputs.literals import UnreadableLiteralError, read_nanoseconds
from embtables.inputs.where import condition_mask
from embtables.schema import Condition

OPERATORS = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
INTEGERS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]


def found(array: pa.Array, op: str, value: object) -> list[bool]:
    condition = Condition(column="c", op=op, value=value)  # type: ignore[arg-type]
    mask: list[bool] = condition_mask(pa.table({"c": array}), [condition]).tolist()
    return mask


@st.composite
def numbers(draw: st.DrawFn) -> tuple[pa.Array, list[Fraction | None], str]:
    """A column of integers or decimals, its values exactly, and a literal near one of them or far away."""
    kind = draw(st.sampled_from([*INTEGERS, pa.decimal128(20, 3), pa.decimal128(38, 0), pa.decimal256(50, 10)]))
    if pa.types.is_decimal(kind):
        limit = 10**kind.precision - 1
        stored = draw(st.lists(st.none() | st.integers(-limit, limit), min_size=1, max_size=6))
        scale = kind.scale
        exact = [None if v is None else Decimal((int(v < 0), tuple(map(int, str(abs(v)))), -scale)) for v in stored]
        array = pa.array(exact, kind)
        values = [None if v is None else Fraction(v, 10**scale) for v in stored]
    else:
        info = np.iinfo(kind.to_pandas_dtype())
        edges = st.sampled_from([int(info.min), int(info.max), 0, 1])
        whole = draw(st.lists(st.none() | edges | st.integers(int(info.min), int(info.max)), min_size=1, max_size=6))
        array, values = pa.array(whole, kind), [None if v is None else Fraction(v) for v in whole]
    near = draw(st.sampled_from([v for v in values if v is not None] or [Fraction(0)]))
    shift = draw(st.sampled_from(["0", "0.5", "-0.5", "1", "-1", "1e30", "-1e30", "0.0001"]))
    whole_part, fraction = divmod(near + Fraction(Decimal(shift)), 1)
    digits = f"{int(fraction * 10**12):012d}"
    return array, values, f"{whole_part}.{digits}" if whole_part >= 0 else _negative(near + Fraction(Decimal(shift)))


def _negative(value: Fraction) -> str:
    whole, fraction = divmod(-value, 1)
    return f"-{whole}.{int(fraction * 10**12):012d}"


@settings(deadline=None, max_examples=300)
@given(numbers(), st.sampled_from(sorted(OPERATORS)))
def test_numbers_compare_exactly(drawn: tuple[pa.Array, list[Fraction | None], str], op: str) -> None:
    array, values, text = drawn
    literal = Fraction(Decimal(text))
    assert found(array, op, text) == [v is not None and bool(OPERATORS[op](v, literal)) for v in values]


@settings(deadline=None, max_examples=200)
@given(
    st.sampled_from(["s", "ms", "us", "ns"]),
    st.sampled_from([None, "UTC", "Asia/Tokyo"]),
    st.lists(st.none() | st.integers(-(10**9) * 4, 10**9 * 4), min_size=1, max_size=5),
    st.integers(-2, 2),
    st.sampled_from(sorted(OPERATORS)),
)
def test_times_compare_as_instants(unit: str, zone: str | None, seconds: list[int | None], shift: int, op: str) -> None:
    per_second = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}[unit]
    array = pa.array([None if s is None else s * per_second for s in seconds], pa.timestamp(unit, zone))
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=(seconds[0] or 0) + shift, milliseconds=500)
    expected = [
        s is not None and bool(OPERATORS[op](s, Fraction((seconds[0] or 0) + shift) + Fraction(1, 2))) for s in seconds
    ]
    assert found(array, op, moment) == expected
    assert found(array, op, moment.replace(tzinfo=None).isoformat(sep=" ")) == expected


def test_a_literal_means_what_its_column_holds() -> None:
    zips = pa.array(["01234", "668", "1234", None])
    assert found(zips, "==", "01234") == [True, False, False, False]
    assert found(zips.dictionary_encode(), "!=", "668") == [True, False, True, False]
    assert found(pa.array([1234, 668]), "==", "01234") == [True, False]
    assert found(pa.array(["NO", "false"]), "==", "NO") == [True, False]
    assert found(pa.array([b"NO", b"\xff"]), "==", "NO") == [True, False]
    assert found(pa.array(["1.10", "1.1"]), "in", ("1.10",)) == [True, False]
    assert found(pa.array([True, False, None]), "!=", "1") == [False, True, False]
    assert found(pa.array([0.1, 0.2, float("nan")], pa.float32()), "==", "0.1") == [True, False, False]
    assert found(pa.array([date(2024, 1, 1), date(2024, 1, 2)]), ">", "2024-01-01T12:00:00") == [False, True]
    assert found(pa.nulls(2), "!=", "x") == [False, False]
    assert found(pa.array(["a", None]), "not in", ("b",)) == [True, False]


@pytest.mark.parametrize(
    ("array", "text", "message"),
    [
        (pa.array([1]), "0x1F", "a number is needed"),
        (pa.array([1]), "yes", "a number is needed"),
        (pa.array([True]), "yes", "true or false is needed"),
        (pa.array([0], pa.timestamp("us")), "yesterday", "a date or time is needed"),
        (pa.array([0], pa.timestamp("us")), "2024-02-30", "there is no such time"),
        (pa.array([[1]]), "1", "nothing is compared with that type"),
        (pa.array([{"a": 1}]), "1", "nothing is compared with that type"),
        (pa.array([0], pa.time32("s")), "12:00", "nothing is compared with that type"),
    ],
)
def test_a_comparison_that_cannot_be_is_refused(array: pa.Array, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"'{text}' cannot be compared with .*: {message}"):
        found(array, "==", text)


def test_a_condition_reads_a_field_of_a_struct_and_names_a_missing_column() -> None:
    table = pa.table({"user": [{"country": "UK"}, None, {"country": "NO"}]})
    condition = Condition(column="user.country", op="==", value="NO")
    assert condition_mask(table, [condition]).tolist() == [False, False, True]
    with pytest.raises(ConfigError, match=r"'user\.age', which is not in the log"):
        condition_mask(table, [Condition(column="user.age", op="==", value="1")])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01", 0),
        ("1970-01-02T00:00:00.000000001", 86_400_000_000_001),
        ("1969-12-31 23:59:59Z", -1_000_000_000),
        ("1970-01-01T09:00+09:00", 0),
        ("9999-12-31", 253_402_214_400_000_000_000),
    ],
)
def test_times_are_read_to_the_nanosecond(text: str, expected: int) -> None:
    assert read_nanoseconds(text) == expected


@pytest.mark.parametrize(
    "text", ["", "2024", "2024-13-01", "2024-01-01T25:00", "01.02.2024", "2024-01-01T00:00:00.0000000001"]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UnreadableLiteralError):
        read_nanoseconds(text)


def test_a_condition_may_hold_values_of_python() -> None:
    values: list[tuple[pa.Array, Any]] = [
        (pa.array([1, 2]), 2),
        (pa.array([0.5, 1.5]), 1.5),
        (pa.array([False, True]), True),
        (pa.array(["1", "2"]), 2),
        (pa.array([date(2024, 1, 1), date(2024, 1, 2)]), date(2024, 1, 2)),
    ]
    for array, value in values:
        assert found(array, "==", value) == [False, True]

"""Times never wrap, are rounded to the past, and their parts are those of the stated zone: against datetime."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embtables.errors import ConfigError
from embtables.inputs.times import as_microseconds, microseconds, moment_us, timestamp_part
from embtables.inputs.values import BadRowsError, one_array
from embtables.schema import EventTime, Feature

PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
INT64 = st.integers(-(2**63), 2**63 - 1)


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(sorted(PER_SECOND)), st.booleans(), st.lists(INT64, min_size=1, max_size=4))
def test_microseconds_are_exact_or_refused(unit: str, as_integers: bool, stored: list[int]) -> None:
    exact = [value * 1_000_000 // PER_SECOND[unit] for value in stored]
    beyond = [n for n, value in enumerate(exact) if not -(2**63) <= value < 2**63]
    array = pa.array(stored, pa.int64())
    kept = EventTime(column="t", unit=unit if as_integers else None)  # type: ignore[arg-type]
    column = array if as_integers else array.cast(pa.timestamp(unit))
    try:
        found = as_microseconds(kept, column).tolist()
    except BadRowsError as error:
        assert set(beyond) <= set(error.rows.tolist())
        assert all(abs(exact[row]) >= 2**63 - 2_000_000 for row in error.rows)
        return
    assert not beyond
    assert found == exact


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.integers(-(2**51), 2**51 - 2**48), min_size=1, max_size=5),
    st.sampled_from([None, "Asia/Kolkata", "America/New_York"]),
    st.sampled_from([None, "Asia/Shanghai"]),
)
def test_parts_are_those_of_the_stated_zone(stored: list[int], zone: str | None, of_column: str | None) -> None:
    local = [
        (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=t)).astimezone(ZoneInfo(zone or "UTC"))
        for t in stored
    ]
    expected = {
        "hour": [t.hour for t in local],
        "weekday": [t.weekday() for t in local],
        "day": [t.day for t in local],
        "month": [t.month for t in local],
        "day_number": [(t.date() - date(1970, 1, 1)).days for t in local],
    }
    array = pa.array(stored, pa.timestamp("us", of_column))
    for part, values in expected.items():
        feature = Feature(name="f", table="t", timestamp_part=part, timestamp_zone=zone)  # type: ignore[arg-type]
        assert timestamp_part(feature, "f", array).tolist() == values, part


def test_dates_and_nulls() -> None:
    days = pa.array([date(1970, 1, 2), None, date(1969, 12, 31)])
    assert microseconds("d", days)[[0, 2]].tolist() == [86_400_000_000, -86_400_000_000]
    milliseconds = one_array(pa.array([1, -1], pa.int64()).cast(pa.date64()))
    assert microseconds("d", milliseconds).tolist() == [1_000, -1_000]
    far = pa.array([0, 2**31 - 1, -(2**31)], pa.int32()).cast(pa.date32())
    with pytest.raises(BadRowsError, match="beyond the range of times") as raised:
        microseconds("d", far)
    assert raised.value.rows.tolist() == [1, 2]
    with pytest.raises(BadRowsError, match="every row needs an event time") as raised:
        as_microseconds(EventTime(column="d"), days)
    assert raised.value.rows.tolist() == [1]


def test_unsigned_integers_beyond_int64_are_no_times() -> None:
    array = pa.array([5, 2**63 + 1], pa.uint64())
    with pytest.raises(BadRowsError) as raised:
        as_microseconds(EventTime(column="t", unit="s"), array)
    assert raised.value.rows.tolist() == [1]
    assert as_microseconds(EventTime(column="t", unit="s"), array.slice(0, 1)).tolist() == [5_000_000]


def test_a_zone_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"names no time zone: 'Mars/Base'; for example Asia/Tokyo"):
        Feature(name="f", table="t", timestamp_part="hour", timestamp_zone="Mars/Base")
    with pytest.raises(ConfigError, match="goes with 'timestamp_part'"):
        Feature(name="f", table="t", timestamp_zone="UTC")


def test_times_beyond_the_calendar_have_parts_too() -> None:
    feature = Feature(name="f", table="t", timestamp_part="weekday")
    found = timestamp_part(feature, "f", pa.array([2**62, -(2**62)], pa.timestamp("us")))
    assert found.tolist() == [((t // 86_400_000_000) + 3) % 7 for t in (2**62, -(2**62))]
    assert found.dtype == np.int64


@given(st.datetimes(), st.integers(-14, 14) | st.none())
def test_a_moment_is_the_same_microsecond_as_arrow_has(moment: datetime, hours: int | None) -> None:
    aware = moment.replace(tzinfo=UTC if hours is None else timezone(timedelta(hours=hours)))
    arrow = pa.scalar(moment, pa.timestamp("us")).cast(pa.int64()).as_py()
    assert moment_us(aware) == arrow - (hours or 0) * 3_600_000_000
    assert moment_us(moment) == arrow

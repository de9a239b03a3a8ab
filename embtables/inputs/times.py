"""Times as int64 microseconds since 1970 UTC, and parts of them. No time ever wraps: what does not fit is a bad row."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embtables.arrow.one_type import EARLIEST, LATEST
from embtables.errors import DataError
from embtables.inputs.values import Int64s, Mask, bad_where, decimal_words
from embtables.schema import EventTime, Feature

_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_DAY_US = 86_400_000_000
_LAST = 2**63 - 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def moment_us(moment: datetime) -> int:
    """Microseconds since 1970 UTC, exactly; a moment without an offset is UTC."""
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return (aware - _EPOCH) // timedelta(microseconds=1)


def as_microseconds(event_time: EventTime, array: pa.Array) -> Int64s:
    """(n,) int64 microseconds since 1970 UTC of a timestamp, date, or integer column with a unit; rounded down.

    Raises:
        BadRowsError: a null, or a time that int64 microseconds cannot hold. DataError: another type, or integers
            without a unit.
    """
    name, kind = event_time.column, array.type
    if array.null_count:
        missing = array.is_null().to_numpy(zero_copy_only=False)
        raise bad_where("is null; every row needs an event time", name, missing)
    if is_time(kind):
        return microseconds(name, array)
    is_decimal = pa.types.is_decimal(kind) and kind.scale == 0  # what int64 and uint64 of two files become
    if not (pa.types.is_integer(kind) or is_decimal):
        raise DataError(f"holds {kind}; event times are timestamps, dates or integers", column=name)
    if event_time.unit is None:
        raise DataError("holds integers; give their unit, event_time: {column, unit: s|ms|us|ns}", column=name)
    if not is_decimal:
        return _scaled(name, array.to_numpy(zero_copy_only=False), event_time.unit)
    numbers, fits, _ = decimal_words(array)
    if not fits.all():
        raise bad_where("holds a number that is beyond the range of times", name, ~fits)
    return _scaled(name, numbers, event_time.unit)


def is_time(kind: pa.DataType) -> bool:
    """Whether a plain type holds points in time."""
    return bool(pa.types.is_timestamp(kind) or pa.types.is_date32(kind))


def microseconds(name: str, array: pa.Array) -> Int64s:
    """(n,) int64 microseconds since 1970 UTC of timestamps or dates; what lies under nulls is arbitrary.

    Raises:
        BadRowsError: a time that int64 microseconds cannot hold.
    """
    is_date = pa.types.is_date32(array.type)
    numbers = array.view(pa.int32() if is_date else pa.int64())  # the same bits, and no kernel to call
    if numbers.null_count:
        numbers = numbers.fill_null(0)
    found = numbers.to_numpy(zero_copy_only=False)
    if is_date:
        return _times(name, found.astype(np.int64), _DAY_US, "days since 1970")
    return _scaled(name, found, array.type.unit)


def _scaled(name: str, numbers: Int64s, unit: str) -> Int64s:
    if unit == "us":
        return _times(name, numbers, 1, unit)
    if unit == "ns":
        return _times(name, numbers, 0, unit) // 1_000
    return _times(name, numbers, 1_000_000 // _PER_SECOND[unit], unit)


def _times(name: str, numbers: Int64s, factor: int, unit: str) -> Int64s:
    """Numbers times a factor; 0 stands for one below 1, so that every int64 is a time."""
    beyond: Mask | None = None
    if factor > 1:
        beyond = (numbers > _LAST // factor) | (numbers < -(_LAST // factor))
    elif numbers.dtype == np.uint64:
        beyond = numbers > _LAST - (factor == 1)
    elif factor == 1 and len(numbers) and (numbers.max() >= LATEST or numbers.min() <= EARLIEST):
        beyond = (numbers >= LATEST) | (numbers <= EARLIEST)
    if beyond is not None and beyond.any():
        raise bad_where(f"holds {numbers[beyond][0]} {unit}, which is beyond the range of times", name, beyond)
    return numbers.astype(np.int64, copy=False) * factor if factor > 1 else numbers.astype(np.int64, copy=False)


def timestamp_part(feature: Feature, name: str, array: pa.Array) -> Int64s:
    """(n,) the part of each time that a feature's `timestamp_part` names, in its zone; arbitrary for nulls.

    hour 0-23, weekday 0-6 (0 is Monday), day 1-31, month 1-12, day_number: days since 1970-01-01.

    Raises:
        BadRowsError: a time that int64 microseconds cannot hold. DataError: the column holds no times.
    """
    if pa.types.is_null(array.type):
        return np.zeros(len(array), np.int64)
    if not is_time(array.type):
        raise DataError(f"holds {array.type}; timestamp_part needs a timestamp", feature=feature.name, column=name)
    times = microseconds(name, array)
    if feature.timestamp_zone is not None:
        times = _local(times, feature.timestamp_zone)
    days = times // _DAY_US
    if feature.timestamp_part == "day_number":
        return days
    if feature.timestamp_part == "hour":
        return times // 3_600_000_000 % 24
    if feature.timestamp_part == "weekday":
        return (days + 3) % 7  # 1970-01-01 was a Thursday
    dates = days.astype("datetime64[D]")
    months = dates.astype("datetime64[M]")
    if feature.timestamp_part == "month":
        return months.astype(np.int64) % 12 + 1
    found: Int64s = (dates - months.astype("datetime64[D]")).astype(np.int64) + 1
    return found


def _local(times: Int64s, zone: str) -> Int64s:
    """Microseconds that a clock of the zone would show."""
    try:
        local = pc.local_timestamp(pa.array(times, pa.timestamp("us", zone)))
    except pa.ArrowException as error:
        raise DataError(f"the time zone {zone} is not known here: {error}; install tzdata") from error
    found: Int64s = local.cast(pa.int64()).to_numpy(zero_copy_only=False)
    return found

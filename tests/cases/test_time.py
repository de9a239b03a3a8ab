"""Event times and parts of timestamps: units, zones, INT96, the ends of the range, nulls."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.cases.case import Case, Cases
from tests.cases.log import Folder, clicks, config

CASES = Cases()
N = 600
_2023 = 1_700_000_000  # 2023-11-14 22:13:20 UTC, in seconds
_23_30 = 1_700_004_600_000_000  # 2023-11-14 23:30:00 UTC, in microseconds
_SPLIT = "split: {kind: time, test_from: 2023-11-14T22:20:00}"  # 400 seconds after _2023


def seconds(bad: dict[int, int | None] | None = None, scale: int = 1) -> list[int | None]:
    """A row per second, in units of 1 / scale seconds, with some values replaced."""
    values: list[int | None] = [(_2023 + i) * scale for i in range(N)]
    for row, value in (bad or {}).items():
        values[row] = value
    return values


def hours(log: Folder, name: str, zone: str | None) -> None:
    """400 rows at 23:30 UTC."""
    log.write(name, {"ts": pa.array(np.full(400, _23_30), pa.timestamp("us", zone)), "y": clicks(400)["y"]})


@CASES.trains(400, ids=1)
def hour_of_a_zoned_column_is_utc(log: Folder) -> str:
    """It is the id of the integer 23 beside it."""
    stamps = pa.array(np.full(400, _23_30), pa.timestamp("us", "Asia/Shanghai"))
    log.write("a.parquet", clicks(400, ts=stamps, k=pa.array([23] * 400)))
    return config("{name: h, column: ts, table: t, timestamp_part: hour}", "k")


@CASES.trains(800, ids=1)
def hour_of_a_zoned_and_a_naive_file(log: Folder) -> str:
    hours(log, "a.parquet", "Asia/Shanghai")
    hours(log, "b.parquet", None)
    return config("{name: h, column: ts, table: t, timestamp_part: hour}", data="block_rows: 400")


@CASES.trains(400, ids=2)
def hour_in_a_zone_that_is_asked_for(log: Folder) -> str:
    hours(log, "a.parquet", None)
    utc = "{name: utc, column: ts, table: t, timestamp_part: hour}"
    return config(utc, "{name: h, column: ts, table: t, timestamp_part: hour, timestamp_zone: Asia/Shanghai}")


@CASES.trains(301, ids=37, evaluated=299)
def nanoseconds_before_1970(log: Folder) -> str:
    """Half of the rows are hours before 1970 but for a nanosecond: each belongs to the microsecond before."""
    stamps = pa.array(np.arange(-300, 300) * 3_600_000_000_000 - 1, pa.timestamp("ns"))
    log.write("a.parquet", clicks(ts=stamps))
    parts = [f"{{name: {p}, column: ts, table: t, timestamp_part: {p}}}" for p in ("hour", "day_number")]
    # 24 hours, and the days -13 to -1 of which the training part has rows.
    return config(*parts, event_time="{column: ts}", data="split: {kind: time, test_from: 1970-01-01}")


@CASES.trains(150, evaluated=450)
def int96_of_the_year_9999(log: Folder) -> str:
    far = datetime(9999, 12, 31, 23, 59, 59)
    times = [far if i % 2 else datetime(2024 if i % 4 else 2026, 1, 1) for i in range(N)]
    stamps = pa.array(times, pa.timestamp("us"))
    log.write("a.parquet", clicks(ts=stamps), use_deprecated_int96_timestamps=True)
    return config(event_time="{column: ts}", data="split: {kind: time, test_from: 2025-01-01}")


@CASES.refused("a.parquet", "column ts", "row 5")
def milliseconds_beyond_microseconds(log: Folder) -> str:
    log.write("a.parquet", clicks(ts=pa.array(seconds({5: 2**62}, 1000), pa.timestamp("ms"))))
    return config(event_time="{column: ts}", data=_SPLIT)


@CASES.refused("a.parquet", "column ts", "row 5")
def smallest_integer_as_a_time(log: Folder) -> str:
    log.write("a.parquet", clicks(ts=pa.array(seconds({5: -(2**63)}, 1000))))
    return config(event_time="{column: ts, unit: ms}", data=_SPLIT)


@CASES.refused("a.parquet", "column ts", "row 5")
def unsigned_time_beyond_int64(log: Folder) -> str:
    log.write("a.parquet", clicks(ts=pa.array(seconds({5: 2**63 + 5}), pa.uint64())))
    return config(event_time="{column: ts, unit: s}", data=_SPLIT)


@CASES.refused("a.parquet", "column ts", "row 7", "null")
def null_time(log: Folder) -> str:
    log.write("a.parquet", clicks(ts=pa.array(seconds({7: None}))))
    return config(event_time="{column: ts, unit: s}", data=_SPLIT)


@CASES.trains(399, evaluated=200, quarantined=1)
def null_time_set_aside(log: Folder) -> str:
    log.write("a.parquet", clicks(ts=pa.array(seconds({7: None}))))
    return config(event_time="{column: ts, unit: s}", data=f"on_bad_row: quarantine, {_SPLIT}")


@CASES.trains(398, evaluated=200, quarantined=2)
def times_out_of_range_set_aside(log: Folder) -> str:
    log.write("a.parquet", clicks(ts=pa.array(seconds({5: 2**63 - 1, 6: -(2**63)}))))
    return config(event_time="{column: ts, unit: s}", data=f"on_bad_row: quarantine, {_SPLIT}")


@CASES.trains(599, quarantined=1)
def null_time_set_aside_without_a_split(log: Folder) -> str:
    log.write("a.parquet", clicks(ts=pa.array(seconds({7: None}))))
    return config(event_time="{column: ts, unit: s}", data="on_bad_row: quarantine")


@CASES.trains(300, evaluated=300)
def zone_in_one_file_only(log: Folder) -> str:
    micros = _2023 * 1_000_000 + np.arange(300)
    log.write("a.parquet", clicks(300, ts=pa.array(micros, pa.timestamp("us", "Asia/Tokyo"))))
    log.write("b.parquet", clicks(300, ts=pa.array(micros, pa.timestamp("us"))))
    return config(event_time="{column: ts}", data="split: {kind: time, test_from: 2023-11-14T22:13:20.000150}")


@CASES.trains(150, evaluated=150)
def split_by_an_offset_time_as_summer_ends(log: Folder) -> str:
    start = 1_698_537_600  # 2023-10-29T00:00Z, a row every 36 seconds
    stamps = pa.array((start + np.arange(300) * 36) * 1_000_000, pa.timestamp("us", "Europe/Berlin"))
    log.write("a.parquet", clicks(300, ts=stamps))
    return config(event_time="{column: ts}", data='split: {kind: time, test_from: "2023-10-29T02:30:00+01:00"}')


@CASES.trains(200, evaluated=100)
def split_by_a_date_column(log: Folder) -> str:
    days = pa.array(np.repeat([19_723, 19_724, 19_725], 100).astype(np.int32)).cast(pa.date32())
    log.write("a.parquet", clicks(300, d=days))
    return config(event_time="{column: d}", data="split: {kind: time, test_from: 2024-01-03}")


@CASES.refused("no rows")
def milliseconds_called_seconds(log: Folder) -> str:
    log.write("a.parquet", clicks(ts=pa.array(seconds(scale=1000))))
    return config(event_time="{column: ts, unit: s}", data=_SPLIT)


@CASES.refused("no rows")
def seconds_called_milliseconds(log: Folder) -> str:
    log.write("a.parquet", clicks(ts=pa.array(seconds())))
    return config(event_time="{column: ts, unit: ms}", data=_SPLIT)


def _ttl(log: Folder, times: Any, ttl: int) -> str:
    log.write("a.parquet", clicks(3000, ts=pa.array(times)))
    tables = f"[{{name: t, dim: 4, ttl_seconds: {ttl}, optimizer: {{kind: adagrad, learning_rate: 0.05}}}}]"
    return config(event_time="{column: ts, unit: s}", tables=tables)


@CASES.trains(3000, ids=40)
def ttl_with_a_row_of_1970_and_one_of_2100(log: Folder) -> str:
    times = _2023 + np.arange(3000) * 10
    times[100], times[500] = 0, 4_102_444_800
    return _ttl(log, times, 3600)


@CASES.trains(3000, ids=40)
def ttl_with_rows_out_of_order(log: Folder) -> str:
    return _ttl(log, _2023 + np.random.default_rng(5).permutation(3000) * 600, 86_400)


@pytest.mark.parametrize("case", CASES)
def test_time(case: Case, tmp_path: Path) -> None:
    case.check(tmp_path)

"""`where`: a literal is read by the type of its column, never by its looks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.cases.case import Case, Cases, Refused, Trained
from tests.cases.log import Folder, clicks, config, every

CASES = Cases()
N = 600
_MIDNIGHT = 1_704_067_200  # 2024-01-01 in UTC
_STAMPS = (_MIDNIGHT - 300 + np.arange(N)) * 1_000_000
_DAYS = pa.array(np.repeat([19_723, 19_724, 19_725], 200).astype(np.int32)).cast(pa.date32())
_NAN = [float("nan"), 3.0, 1.0]
_SHANGHAI = pa.timestamp("us", "Asia/Shanghai")
_ZONED = "2024-01-01T08:00:00+08:00"

# Column, condition, and how many of 600 rows it admits, or what the message says.
CONDITIONS: list[tuple[str, Any, str, int | tuple[str, ...]]] = [
    ("norway", every(["SE", "NO", "DK"], N), "v in [SE, NO]", 400),
    ("not_in_norway", every(["SE", "NO", "DK"], N), "v not in [NO]", 400),
    ("equal_to_norway", every(["SE", "NO", "DK"], N), "v == NO", 200),
    ("leading_zero", every(["01234", "98765"], N), "v == 01234", 300),
    ("hexadecimal", every(["0x1F", "31"], N), "v == 0x1F", 300),
    ("octal", every(["0o17", "15"], N), "v != 0o17", 300),
    ("exponent", every(["1e3", "1000.0"], N), "v == 1e3", 300),
    ("underscored_number", every(["1_000", "1000"], N), "v == 1_000", 300),
    ("sexagesimal_time", every(["12:30", "18:00"], N), "v == 12:30", 300),
    ("on_and_off", every(["on", "off"], N), "v == on", 300),
    ("yes", every(["yes", "no"], N), "v in [yes]", 300),
    ("true_as_text", every(["true", "True", "TRUE"], N), "v == true", 200),
    ("version", every(["1.10", "1.1"], N), "v == 1.10", 300),
    ("date_as_text", every(["2024-01-01", "2024-01-02"], N), "v >= 2024-01-02", 300),
    ("quoted_text", every(["SE", "NN", "DK"], N), 'v in ["SE", "DK"]', 400),
    ("text_with_a_comma", every(["a, b", "c"], N), 'v == "a, b"', 300),
    ("the_word_null", every(["null", "ios"], N), "v != null", ("is null", "is not null")),
    ("a_quoted_null", every(["null", "ios"], N), "v == 'null'", 300),
    ("string_view", every(["SE", "NN", "DK"], N, pa.string_view()), "v in [SE, DK]", 400),
    ("large_string", every(["SE", "NN", "DK"], N, pa.large_string()), "v != SE", 400),
    ("dictionary", every(["SE", "NO", "DK"], N).dictionary_encode(), "v in [SE, NO]", 400),
    ("dictionary_of_integers", every([1, 2, 3], N).dictionary_encode(), "v >= 2", 400),
    ("binary", every([b"SE", b"NO"], N), "v == NO", 300),
    ("bool_false", every([True, False, False], N), "v == false", 400),
    ("bool_one", every([True, False, False], N), "v == 1", 200),
    ("bool_and_a_word", every([True, False, False], N), "v == maybe", ("maybe", "bool", "v")),
    ("int_and_a_word", every([1, 2], N), "v == UK", ("UK", "int64", "v")),
    ("int_and_a_fraction", every(range(10), N), "v < 1.5", 120),
    ("int_equal_to_a_fraction", every(range(10), N), "v == 1.5", 0),
    ("int8_below_a_larger_number", every(range(100), N, pa.int8()), "v < 1000", 600),
    ("int8_equal_to_a_larger_number", every(range(100), N, pa.int8()), "v == 1000", 0),
    ("uint64", every([2**63, 2**63 + 1], N, pa.uint64()), "v == 9223372036854775809", 300),
    ("int64_above_2_to_the_53", every([2**53, 2**53 + 1], N), "v == 9007199254740993", 300),
    ("halffloat", pa.array(np.arange(N).astype(np.float16)), "v != 3", 599),
    ("float32_of_a_tenth", every([0.1, 0.2], N, pa.float32()), "v == 0.1", 300),
    ("nan_is_not_three", every(_NAN, N), "v != 3", 400),
    ("nan_is_not_below", every(_NAN, N), "v < 5", 400),
    ("null_is_neither", every([1, 2, None], N), "v != 1", 200),
    ("null_is_not_in", every([1, 2, None], N), "v not in [1]", 200),
    ("is_null", every([1, 2, None], N), "v is null", 200),
    ("is_not_null", every([1, 2, None], N), "v is not null", 400),
    ("decimal", pa.array(np.arange(N)).cast(pa.decimal128(20, 0)).cast(pa.decimal128(22, 2)), "v >= 100.5", 499),
    ("decimal_beyond_float64", every([10**20, 10**20 + 1], N, pa.decimal128(30, 0)), "v == 100000000000000000001", 300),
    ("date", _DAYS, "v >= 2024-01-02", 400),
    ("date_and_a_time", _DAYS, "v > 2024-01-02T12:00:00", 200),
    ("zoned_time_on_a_zoned_column", pa.array(_STAMPS, _SHANGHAI), f"v >= {_ZONED}", 300),
    ("zoned_time_on_a_naive_column", pa.array(_STAMPS, pa.timestamp("us")), f"v >= {_ZONED}", 300),
    ("naive_time_on_a_zoned_column", pa.array(_STAMPS, _SHANGHAI), "v >= 2024-01-01 00:00:00", 300),
    ("date_on_a_timestamp", pa.array(_STAMPS, pa.timestamp("us")), "v < 2024-01-01", 300),
    ("timestamp_and_a_word", pa.array(_STAMPS, pa.timestamp("us")), "v >= yesterday", ("yesterday", "v")),
    ("list", every([[1, 2]], N), "v == 1", ("list", "v")),
    ("struct", pa.array([{"a": 1}] * N), "v == 1", ("struct", "v")),
    ("struct_field", pa.array([{"a": i % 3} for i in range(N)]), "v.a == 1", 200),
    ("missing_column", every([1], N), "w == 1", ("w",)),
]


@pytest.mark.parametrize(("column", "condition", "right"), [c[1:] for c in CONDITIONS], ids=[c[0] for c in CONDITIONS])
def test_a_condition(column: Any, condition: str, right: int | tuple[str, ...], tmp_path: Path) -> None:
    def build(log: Folder) -> str:
        log.write("a.parquet", clicks(N, v=column))
        return config(data=f"where: [{json.dumps(condition)}]")

    if isinstance(right, tuple):
        wanted: Trained | Refused = Refused(right)
    else:
        wanted = Trained(right) if right else Refused(("holds no rows",))
    Case("condition", build, wanted).check(tmp_path)


def test_no_row_equals_a_value_of_a_column_of_nulls(tmp_path: Path) -> None:
    def build(log: Folder) -> str:
        log.write("a.parquet", clicks(N, v=pa.nulls(N)))
        return config(data='where: ["v != 3"]')

    Case("null", build, Refused(())).check(tmp_path)


@pytest.mark.parametrize(
    ("condition", "rows"),
    [
        ("dt >= 2024-01-02", 400),
        ("dt < 2024-01-02", 200),
        ("dt < '2024-01-02'", 200),
        ("dt != 2024-01-01", 400),
        ("dt == 2024-01-02", 200),
        ("dt in [2024-01-01, 2024-01-03]", 400),
        ("dt == 2024-1-2", 0),
    ],
)
@pytest.mark.parametrize("declared", ["", "partitions: {dt: date}"])
def test_a_condition_on_folders_of_dates(condition: str, rows: int, declared: str, tmp_path: Path) -> None:
    def build(log: Folder) -> str:
        for day in ("2024-01-01", "2024-01-02", "2024-01-03"):
            log.write(f"dt={day}/a.parquet", clicks(200))
        return config(data=f"where: [{json.dumps(condition)}]" + (f", {declared}" if declared else ""))

    Case("dt", build, Trained(rows) if rows else Refused(())).check(tmp_path)


@CASES.refused("where", "{column:", "value:")
def name_with_a_space_as_text(log: Folder) -> str:
    log.write("a.parquet", {"user id": clicks(300)["u"], "y": clicks(300)["y"]})
    return config("user id", data='where: ["user id != 3"]')


@CASES.trains(293)
def name_with_a_space_as_a_mapping(log: Folder) -> str:
    users = clicks(300)["u"]
    assert users.to_pylist().count(3) == 7
    log.write("a.parquet", {"user id": users, "y": clicks(300)["y"]})
    return config("user id", data='where: [{column: user id, op: "!=", value: 3}]')


@pytest.mark.parametrize("case", CASES)
def test_conditions(case: Case, tmp_path: Path) -> None:
    case.check(tmp_path)

"""Side tables: keys of every type, nulls, columns of the log's names, files that differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.cases.case import Case, Cases
from tests.cases.log import Folder, clicks, config, every, required

CASES = Cases()
CITIES = ["a", "b"] * 20


def joined(key: str = "u", path: str = "users.parquet", more: str = "") -> str:
    """The option that joins a side table beside the log."""
    return f"join: [{{path: ../{path}, key: {key}{', ' * bool(more)}{more}}}]"


def keyed(log: Folder, ours: Any, theirs: Any, more: str = "") -> str:
    """A log and a side table with 2 cities that are joined by the column `k`."""
    log.write("a.parquet", clicks(k=ours))
    log.write("/users.parquet", {"k": theirs, "city": every(CITIES, len(theirs))})
    return config("city", data=joined("k", more=more))


@CASES.trains(600, ids=2)
def key_of_categories_and_views(log: Folder) -> str:
    names = [f"k{i}" for i in range(40)]
    return keyed(log, every(names, 600).dictionary_encode(), pa.array(names, pa.string_view()))


@CASES.trains(600, ids=2)
def key_of_unsigned_integers(log: Folder) -> str:
    keys = [2**63 + i for i in range(40)]
    return keyed(log, every(keys, 600, pa.uint64()), pa.array(keys, pa.uint64()))


@CASES.trains(600, ids=2)
def key_of_two_widths(log: Folder) -> str:
    return keyed(log, every(range(40), 600, pa.int8()), pa.array(range(40), pa.uint32()))


@CASES.trains(600, ids=2)
def key_of_dates_and_timestamps(log: Folder) -> str:
    days = every(range(40), 600, pa.int32()).cast(pa.date32())
    return keyed(log, days, pa.array(np.arange(40) * 86_400_000_000, pa.timestamp("us")))


@CASES.refused("column k", "double")
def key_that_became_a_float(log: Folder) -> str:
    return keyed(log, every(range(40), 600), pa.array([float(i) for i in range(40)]))


@CASES.refused("column k", "list")
def key_of_lists_in_the_log(log: Folder) -> str:
    return keyed(log, every([[1, 2]], 600), pa.array(range(40)))


@CASES.refused("users.parquet", "column k", "list")
def key_of_lists_in_the_side_table(log: Folder) -> str:
    return keyed(log, every([1, 2], 600), pa.array([[1], [2]]))


@CASES.trains(600, ids=2)
def null_keys(log: Folder) -> str:
    keys = [None if i % 4 == 0 else i % 40 for i in range(600)]
    return keyed(log, pa.array(keys), pa.array(range(40)), more='on_missing: "null"')


@CASES.trains(600, ids=2)
def on_missing_null_without_quotes(log: Folder) -> str:
    return keyed(log, every(range(40), 600), pa.array(range(10)), more="on_missing: null")


@CASES.refused("users.parquet", "column u", "1 2 times")
def key_that_is_there_twice(log: Folder) -> str:
    log.write("a.parquet", clicks(100))
    log.write("/users.parquet", {"u": [1, 1, 2], "city": ["a", "b", "c"]})
    return config("city", data=joined())


@CASES.trains(100, ids=0)
def side_table_of_zero_rows(log: Folder) -> str:
    log.write("a.parquet", clicks(100))
    log.write("/users.parquet", {"u": pa.array([], pa.int64()), "city": pa.array([], pa.string())})
    return config("city", data=joined(more='on_missing: "null"'))


@CASES.trains(600, ids=2)
def lists_and_structs_of_a_side_table(log: Folder) -> str:
    log.write("a.parquet", clicks())
    side = {"u": np.arange(40), "tags": [["a", "b"]] * 40, "st": [{"a": 1}] * 40}
    log.write("/users.parquet", side)
    return config("tags", data=joined())


@CASES.trains(300, ids=3)
def key_of_folders(log: Folder) -> str:
    for number in range(3):
        log.write(f"shop=s{number}/a.parquet", clicks(100))
    log.write("/shops.parquet", {"shop": ["s0", "s1", "s2"], "city": ["a", "b", "c"]})
    return config("city", data=joined("shop", "shops.parquet"))


@CASES.trains(600, ids=42)
def key_among_the_columns_that_are_taken(log: Folder) -> str:
    log.write("a.parquet", clicks())
    log.write("/users.parquet", {"u": np.arange(40), "city": CITIES})
    return config("u", "city", data=joined(more="columns: [u, city]"))


@CASES.refused("price", "prefix")
def column_that_the_log_has_too(log: Folder) -> str:
    log.write("a.parquet", clicks(price=pa.array(np.ones(600))))
    log.write("/users.parquet", {"u": np.arange(40), "price": np.full(40, 1000.0), "city": CITIES})
    return config("city", dense="[{column: price}]", data=joined())


def _two_files(log: Folder, first: Any, second: Any) -> str:
    log.write("a.parquet", clicks(100))
    log.write("/users/0.parquet", first)
    log.write("/users/1.parquet", second)
    return config("city", data=joined(path="users"))


_HALF = {"u": np.arange(20), "city": CITIES[:20]}


@CASES.trains(100, ids=2)
def side_files_of_which_one_is_never_null(log: Folder) -> str:
    return _two_files(log, _HALF, required({"u": np.arange(20, 40), "city": CITIES[:20]}))


@CASES.refused("1.parquet", "column city", "is missing")
def side_file_that_lacks_a_column(log: Folder) -> str:
    return _two_files(log, _HALF, {"u": np.arange(20, 40)})


@CASES.refused("0.parquet", "1.parquet", "column u")
def side_files_whose_keys_have_other_types(log: Folder) -> str:
    return _two_files(log, _HALF, {"u": [f"x{i}" for i in range(20)], "city": CITIES[:20]})


@CASES.trains(100, ids=2)
def side_files_of_categories_and_strings(log: Folder) -> str:
    second = {"u": pa.array(range(20, 40), pa.int8()), "city": pa.array(CITIES[:20]).dictionary_encode()}
    return _two_files(log, _HALF, second)


@pytest.mark.parametrize("case", CASES)
def test_joins(case: Case, tmp_path: Path) -> None:
    case.check(tmp_path)

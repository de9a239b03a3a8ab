"""Columns whose type, order or presence differs between the files of a log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.cases.case import Case, Cases, Refused, Trained
from tests.cases.log import Folder, clicks, config, every, required

CASES = Cases()
N = 300
_S = [f"s{i}" for i in range(9)]
# Columns of one log in two files: how many ids both hold, or that both files are named.
PAIRS: dict[str, tuple[Any, Any, int | None]] = {
    "string_and_view": (every(_S, N), every(_S, N, pa.string_view()), 9),
    "string_and_dictionary": (every(_S, N), every(_S, N).dictionary_encode(), 9),
    "string_and_large_binary": (every(_S, N), every([s.encode() for s in _S], N, pa.large_binary()), 9),
    "string_and_fixed_size_binary": (every(_S, N), every([s.encode() for s in _S], N, pa.binary(2)), 9),
    "string_and_null": (every(_S, N), pa.nulls(N), 9),
    "list_of_dictionary_and_of_string": (
        pa.ListArray.from_arrays(pa.array(np.arange(N + 1, dtype=np.int32)), every(_S, N).dictionary_encode()),
        every([[s] for s in _S], N),
        9,
    ),
    "list_and_list_of_null": (every([[1], [2, 3]], N), pa.array([[]] * N, pa.list_(pa.null())), 3),
    "list_and_null": (every([[1], [2, 3]], N), pa.nulls(N), 3),
    "list_and_large_list": (every([[1], [2]], N, pa.list_(pa.int8())), every([[3]], N, pa.large_list(pa.uint64())), 3),
    "list_and_view": (every([["a"]], N), every([["b"]], N, pa.list_view(pa.string_view())), 2),
    "int64_and_bool": (every([0, 1, 2], N), every([True, False], N), 3),
    "int64_and_uint64": (every([-1, 5], N), every([2**64 - 1, 5], N, pa.uint64()), 2),
    "int64_and_decimal": (every([1, 2], N), every([2, 3], N, pa.decimal128(30, 0)), 3),
    "date_and_timestamp": (
        every([0, 1], N, pa.int32()).cast(pa.date32()),
        every([86_400_000_000_000], N, pa.timestamp("ns")),
        2,
    ),
    "timestamps_of_two_units": (every([1], N, pa.timestamp("s")), every([1_000_000], N, pa.timestamp("us", "UTC")), 1),
    "int_and_string": (every([1, 2], N), every(["1", "2"], N), None),
    "int_and_float": (every([1, 2], N), every([1.0, None], N), None),
    "int_and_timestamp": (every([1, 2], N), every([1, 2], N, pa.timestamp("us")), None),
    "int_and_list": (every([1, 2], N), every([[1]], N), None),
    "list_of_int_and_of_string": (every([[1]], N), every([["1"]], N), None),
}


@pytest.mark.parametrize("first", ["a", "b"])
@pytest.mark.parametrize("name", PAIRS)
def test_two_types_of_one_id_column(name: str, first: str, tmp_path: Path) -> None:
    one, other, ids = PAIRS[name]

    def build(log: Folder) -> str:
        log.write(f"{first}.parquet", clicks(N, v=one))
        log.write(f"{'b' if first == 'a' else 'a'}.parquet", clicks(N, v=other))
        return config("v")

    right = Refused(("a.parquet", "b.parquet", "column v")) if ids is None else Trained(2 * N, ids)
    Case(name, build, right).check(tmp_path)


@CASES.trains(1200, ids=300)
def pandas_categories(log: Folder) -> str:
    """100 categories a day with int8 codes: together they need wider ones."""
    for day in range(3):
        users = pd.Series([f"d{day}c{i % 100}" for i in range(400)], dtype="category")
        pd.DataFrame({"u": users, "y": [0, 1] * 200}).to_parquet(log.path(f"log/{day}.parquet"))
    return config()


@CASES.trains(1200, ids=300)
def pandas_categories_of_integers(log: Folder) -> str:
    for day in range(3):
        users = pd.Series([1000 * day + i % 100 for i in range(400)], dtype="category")
        pd.DataFrame({"u": users, "y": [0, 1] * 200}).to_parquet(log.path(f"log/{day}.parquet"))
    return config()


@CASES.trains(600, ids=300)
def dictionaries_of_int8_whose_union_is_wider(log: Folder) -> str:
    for day in range(3):
        codes = pa.array(np.arange(100, dtype=np.int8).repeat(2))
        users = pa.DictionaryArray.from_arrays(codes, [f"d{day}c{i}" for i in range(100)])
        log.write(f"{day}.parquet", {"u": users, "y": every([0, 1], 200)})
    return config()


@CASES.trains(600, ids=40)
def columns_that_are_never_null_in_one_file(log: Folder) -> str:
    log.write("a.parquet", clicks(300))
    log.write("b.parquet", required(clicks(300)))
    return config(dense="[{column: x}]")


@CASES.trains(600, ids=10, quarantined=0)
def bytes_in_one_file_strings_in_the_other(log: Folder) -> str:
    log.write("a.parquet", clicks(300, s=pa.array([b"caf\xe9"] + [b"x%d" % (i % 9) for i in range(299)])))
    log.write("b.parquet", clicks(300, s=every([f"x{i}" for i in range(9)], 300)))
    return config("s")


@CASES.trains(600, ids=2)
def null_id_of_a_column_that_one_file_has_as_null_type(log: Folder) -> str:
    """`null_id: 5` is one id: that of the text, because the column holds texts."""
    log.write("a.parquet", clicks(300, s=pa.array([None] * 299 + ["z"])))
    log.write("b.parquet", clicks(300, s=pa.nulls(300)))
    return config("{name: s, table: t, null_id: 5}", data="block_rows: 300")


@CASES.trains(900, ids=40)
def widths_order_and_more_columns(log: Folder) -> str:
    c = clicks(300)
    log.write("a.parquet", {**c, "u": c["u"].cast(pa.int32()), "x": c["x"].cast(pa.float32())})
    log.write("b.parquet", {"x": c["x"], "new": c["u"], "y": c["y"].cast(pa.int8()), "u": c["u"]})
    log.write("c.parquet", {**c, "u": c["u"].cast(pa.uint8())})
    return config(dense="[{column: x}]")


@CASES.trains(900, ids=8)
def lists_and_texts_of_three_kinds(log: Folder) -> str:
    texts = [f"s{i}" for i in range(3)]
    log.write("a.parquet", clicks(300, l=every([[i] for i in range(5)], 300, pa.list_(pa.int32())), s=pa.nulls(300)))
    large = every([[i] for i in range(5)], 300, pa.large_list(pa.int64()))
    log.write("b.parquet", clicks(300, l=large, s=every(texts, 300).dictionary_encode()))
    pairs = every([[i, 1] for i in range(5)], 300, pa.list_(pa.uint8(), 2))
    log.write("c.parquet", clicks(300, l=pairs, s=every([t.encode() for t in texts], 300)))
    return config("l", "s")


@CASES.trains(600, ids=5)
def list_items_that_are_never_null_in_one_file(log: Folder) -> str:
    values = [[i] for i in range(5)]
    strict = pa.list_(pa.field("item", pa.int64(), nullable=False))
    log.write("a.parquet", clicks(300, l=every(values, 300, strict)))
    log.write("b.parquet", clicks(300, l=every(values, 300, pa.list_(pa.field("element", pa.int64())))))
    return config("l")


@CASES.trains(600, ids=8)
def lists_as_spark_writes_them(log: Folder) -> str:
    stars = every([[f"s{i}", "x"] for i in range(7)], 300, pa.list_(pa.field("element", pa.string(), nullable=False)))
    log.write("a.parquet", clicks(300, stars=stars), use_compliant_nested_type=True)
    log.write("b.parquet", clicks(300, stars=stars), use_compliant_nested_type=False)
    return config("stars")


@CASES.trains(600, ids=40)
def first_file_holds_nothing_but_nulls(log: Folder) -> str:
    log.write("a.parquet", {**clicks(300), "x": pa.nulls(300), "u": pa.nulls(300)})
    log.write("b.parquet", clicks(300))
    return config(dense="[{column: x, fill_null: 0}]")


@CASES.trains(600, ids=40)
def dense_column_of_integers_then_floats(log: Folder) -> str:
    log.write("a.parquet", {**clicks(300), "x": pa.array(np.arange(300))})
    log.write("b.parquet", {**clicks(300), "x": every([None, 1.0, 2.0], 300)})
    return config(dense="[{column: x, fill_null: 0}]")


@CASES.trains(600, ids=40)
def label_of_integers_then_booleans(log: Folder) -> str:
    log.write("a.parquet", clicks(300))
    log.write("b.parquet", {**clicks(300), "y": clicks(300)["y"].cast(pa.bool_())})
    return config()


@CASES.trains(600, ids=40)
def dense_decimals_of_two_widths(log: Folder) -> str:
    numbers = clicks(300)["u"].cast(pa.decimal128(20, 0))
    log.write("a.parquet", {**clicks(300), "x": numbers.cast(pa.decimal128(22, 2))})
    log.write("b.parquet", {**clicks(300), "x": numbers.cast(pa.decimal128(24, 4))})
    return config(dense="[{column: x}]")


@CASES.refused("a.parquet", "column new", "is missing")
def column_that_older_files_lack(log: Folder) -> str:
    log.write("a.parquet", clicks(300))
    log.write("b.parquet", clicks(300, new=every(range(5), 300)))
    return config("u", "new")


@CASES.trains(600, ids=45)
def column_that_older_files_lack_as_nulls(log: Folder) -> str:
    log.write("a.parquet", clicks(300))
    log.write("b.parquet", clicks(300, new=every(range(100, 105), 300)))
    return config("u", "new", data='on_missing_column: "null"')


@CASES.trains(600, ids=40)
def field_ids_that_differ(log: Folder) -> str:
    table = pa.table(clicks(300))
    for first in (0, 10):
        fields = [
            pa.field(f.name, f.type, metadata={"PARQUET:field_id": str(first + n)}) for n, f in enumerate(table.schema)
        ]
        log.write(f"{first}.parquet", table.cast(pa.schema(fields)))
    return config(dense="[{column: x}]")


@CASES.trains(300, ids=40)
def files_without_rows(log: Folder) -> str:
    """One with the columns' types, and one as pandas writes an empty frame: all of type null."""
    log.write("a.parquet", clicks(300))
    log.write("b.parquet", pa.table(clicks(300)).slice(0, 0))
    log.write("c.parquet", {name: pa.nulls(0) for name in clicks(300)})
    return config(dense="[{column: x}]")


@CASES.trains(300, ids=40)
def empty_row_groups(log: Folder) -> str:
    table = pa.table(clicks(300))
    empty = pa.RecordBatch.from_arrays([pa.array([], f.type) for f in table.schema], schema=table.schema)
    with pq.ParquetWriter(log.path("log/a.parquet"), table.schema) as writer:
        for start, rows in ((0, 100), (100, 200)):
            writer.write_batch(empty)
            writer.write_table(table.slice(start, rows))
        writer.write_batch(empty)
    return config(dense="[{column: x}]")


@CASES.trains(1800, ids=40)
def every_compression(log: Folder) -> str:
    for codec in ("zstd", "brotli", "lz4", "gzip", "snappy", "none"):
        pages = "2.0" if codec in ("zstd", "none") else "1.0"
        log.write(f"{codec}.parquet", clicks(300), compression=codec, data_page_version=pages)
    return config(dense="[{column: x}]")


@CASES.refused("a.parquet", "5,101", "5,001", during=True)
def pages_with_fewer_rows_than_the_footer_says(log: Folder) -> str:
    path = log.write("a.parquet", {"u": pa.array(np.arange(5001) % 7), "y": every([0, 1], 5001)}, compression="none")
    content = path.read_bytes()
    # Thrift's compact form: a field header (next field, i64) and the number zigzagged, seven bits a byte.
    said, lie = b"\x16\x92\x4e", b"\x16\xda\x4f"  # 5,001 and 5,101
    footer = content.rindex(b"PAR1", 0, len(content)) - 4 - int.from_bytes(content[-8:-4], "little")
    first, last = content.index(said, footer), content.rindex(said)
    for at in (first, last):  # the rows of the file, and of its row group
        content = content[:at] + lie + content[at + len(lie) :]
    path.write_bytes(content)
    assert pq.ParquetFile(path).metadata.num_rows == pq.ParquetFile(path).metadata.row_group(0).num_rows == 5101
    return config()


@pytest.mark.parametrize("case", CASES)
def test_types_that_differ(case: Case, tmp_path: Path) -> None:
    case.check(tmp_path)

"""Columns as ids: types, nulls, bytes, lists, crosses."""

from __future__ import annotations

import tracemalloc
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.cases.case import Case, Cases, Refused, Trained
from tests.cases.log import BY_U, TABLES, Folder, as_text, clicks, config, every

CASES = Cases()
N = 300
_NO_IDS = "cannot be ids"
_LISTS = list(range(N))
# Each value with how many ids it holds, or the message.
TYPES: dict[str, tuple[Any, int | str]] = {
    "bool": (every([True, False], N), 2),
    "int8": (every(range(-50, 50), N, pa.int8()), 100),
    "uint64": (every([2**64 - 1 - i for i in range(50)], N, pa.uint64()), 50),
    "float": (every([0.0, 1.0], N), _NO_IDS),
    "halffloat": (pa.array(np.arange(N).astype(np.float16)), _NO_IDS),
    "decimal": (every(range(50), N, pa.decimal128(20, 0)), 50),
    "decimal256": (every(range(50), N, pa.decimal256(50, 0)), 50),
    "decimal_with_scale": (every(range(50), N, pa.decimal128(20, 2)), _NO_IDS),
    "string_view": (every([f"s{i}" for i in range(7)], N, pa.string_view()), 7),
    "binary": (every([b"\xff%d" % i for i in range(7)], N), 7),
    "binary_view": (every([b"s%d" % i for i in range(7)], N, pa.binary_view()), 7),
    "fixed_size_binary": (every([bytes([i]) * 16 for i in range(50)], N, pa.binary(16)), 50),
    "uuid": (every([uuid.UUID(int=i).bytes for i in range(50)], N, pa.uuid()), 50),
    "date32": (every(range(19000, 19050), N, pa.int32()).cast(pa.date32()), 50),
    "date64": (every([i * 86_400_000 for i in range(50)], N, pa.date64()), 50),
    "timestamp_ns_zoned": (every([i * 1000 for i in range(50)], N, pa.timestamp("ns", tz="+05:30")), 50),
    "timestamp_ns_below_a_microsecond": (every(range(50), N, pa.timestamp("ns")), 1),
    "null": (pa.nulls(N), 0),
    "large_list": (every([[i] for i in range(7)], N, pa.large_list(pa.int32())), 7),
    "fixed_size_list": (every([[1, 2], None, [3, 1]], N, pa.list_(pa.int16(), 2)), 3),
    "list_view": (every([[i] for i in range(7)], N, pa.list_view(pa.int32())), 7),
    "list_of_bool": (every([[True, False]], N), 2),
    "list_of_date": (every([[i] for i in range(7)], N, pa.list_(pa.date32())), 7),
    "list_of_timestamps_and_null": (every([[i, None] for i in range(7)], N, pa.list_(pa.timestamp("us"))), 7),
    "list_of_uuid": (every([[uuid.UUID(int=i).bytes] for i in range(7)], N, pa.list_(pa.binary(16))), 7),
    "list_of_float": (every([[1.0, 2.0]], N), _NO_IDS),
    "list_of_list": (pa.array([[[i]] for i in _LISTS]), _NO_IDS),
    "list_of_struct": (pa.array([[{"id": i}] for i in _LISTS]), _NO_IDS),
    "map": (pa.array([[("k", i)] for i in _LISTS], pa.map_(pa.string(), pa.int64())), _NO_IDS),
    "struct": (pa.array([{"a": i} for i in _LISTS]), _NO_IDS),
    "time64": (pa.array(_LISTS, pa.time64("us")), _NO_IDS),
    "duration": (pa.array(_LISTS, pa.duration("us")), _NO_IDS),
}


@pytest.mark.parametrize("name", TYPES)
def test_a_type_as_ids(name: str, tmp_path: Path) -> None:
    column, right = TYPES[name]

    def build(log: Folder) -> str:
        log.write("a.parquet", clicks(N, v=column))
        return config("v")

    wanted = Refused((_NO_IDS, "v")) if isinstance(right, str) else Trained(N, right)
    Case(name, build, wanted).check(tmp_path)


@CASES.trains(600, ids=20)
def timestamps_with_nulls(log: Folder) -> str:
    stamps = [None if i % 10 == 0 else 1_700_000_000_000_000 + i % 20 for i in range(600)]
    log.write("a.parquet", clicks(ts=pa.array(stamps, pa.timestamp("us"))))
    # i % 20 without the multiples of 10 are 18 ids; with a null_id there is one more, and u's ids beside them none.
    return config("{name: ts, table: t, null_id: -5}", "{name: other, column: ts, table: t, null_id: -6}")


@CASES.trains(600, ids=18)
def a_null_timestamp_is_an_absent_id(log: Folder) -> str:
    stamps = [None if i % 10 == 0 else 1_700_000_000_000_000 + i % 20 for i in range(600)]
    log.write("a.parquet", clicks(ts=pa.array(stamps, pa.timestamp("us"))))
    return config("ts")


@CASES.trains(900, ids=8)
def texts_are_not_normalised(log: Folder) -> str:
    texts = ["007", "7", "", None, "a", "a ", "\u00e9", "e\u0301", "A"]
    log.write("a.parquet", clicks(900, s=every(texts, 900)))
    return config("s")


@CASES.trains(300, ids=6)
def null_category(log: Folder) -> str:
    log.write("a.parquet", clicks(300, c=pa.array([None if i % 3 == 0 else f"c{i % 9}" for i in range(300)])))
    return config("c")


@CASES.trains(300, ids=4)
def the_ends_of_int64(log: Folder) -> str:
    log.write("a.parquet", {**clicks(300), "u": every([-(2**63), 2**63 - 1, -1, 0], 300)})
    return config()


@CASES.trains(300, ids=151)
def null_id_of_64_unsigned_bits(log: Folder) -> str:
    users = pa.array([None if i % 2 == 0 else i for i in range(300)], pa.uint64())
    log.write("a.parquet", {**clicks(300), "u": users})
    return config("{name: u, table: t, null_id: 18446744073709551615}")


@CASES.refused("null_id")
def null_id_beyond_64_bits(log: Folder) -> str:
    log.write("a.parquet", clicks(300))
    return config("{name: u, table: t, null_id: 18446744073709551616}")


@CASES.trains(300, ids=6)
def null_id_of_split_strings_and_lists(log: Folder) -> str:
    lists = every([None, [1, 2]], 300, pa.list_(pa.int64()))
    log.write("a.parquet", clicks(300, s=every([None, "a|b"], 300), l=lists))
    return config('{name: s, table: t, split: "|", null_id: none}', "{name: l, table: t, null_id: 77}")


@CASES.trains(500, ids=3)
def lists_with_nulls_and_weights(log: Folder) -> str:
    lists = every([[1, None, 2], [], None, [None], [3]], 500, pa.list_(pa.int64()))
    weights = every([[1.0, 2.0, 3.0], [], None, [1.0], [0.5]], 500, pa.list_(pa.float64()))
    log.write("a.parquet", clicks(500, l=lists, w=weights))
    return config("{name: l, table: t, weights_column: w, pooling: mean}")


@CASES.trains(300, ids=1)
def null_weight_of_a_null_id(log: Folder) -> str:
    lists = every([[1, None]], 300, pa.list_(pa.int64()))
    log.write("a.parquet", clicks(300, l=lists, w=every([[1.0, None]], 300, pa.list_(pa.float64()))))
    return config("{name: l, table: t, weights_column: w}")


@CASES.refused("a.parquet", "column w", "row 0", "null")
def null_weight_of_an_id(log: Folder) -> str:
    lists = every([[1, 2]], 300, pa.list_(pa.int64()))
    log.write("a.parquet", clicks(300, l=lists, w=every([[1.0, None]], 300, pa.list_(pa.float64()))))
    return config("{name: l, table: t, weights_column: w}")


@CASES.refused("a.parquet", "column w", "row 5")
def weight_of_an_id_beyond_float32(log: Folder) -> str:
    weights = pa.array([[1.0, 1e300 if i == 5 else 1.0] for i in range(600)])
    log.write("a.parquet", clicks(l=every([[1, 2]], 600), w=weights))
    return config("{name: l, table: t, weights_column: w}")


@CASES.trains(300, ids=2)
def weights_beside_a_split_string(log: Folder) -> str:
    log.write("a.parquet", clicks(300, s=every(["a|b"], 300), w=every([[1.0, 2.0]], 300)))
    return config('{name: s, table: t, split: "|", weights_column: w}')


@CASES.refused("a.parquet", "column w", "row 0", "3 weights for 2 ids")
def weights_beside_an_empty_piece(log: Folder) -> str:
    log.write("a.parquet", clicks(300, s=every(["a||b"], 300), w=every([[1.0, 2.0, 3.0]], 300)))
    return config('{name: s, table: t, split: "|", weights_column: w}')


@CASES.trains(299, ids=10, quarantined=1)
def bytes_of_a_split_string_that_are_not_text(log: Folder) -> str:
    log.write("a.parquet", clicks(300, s=pa.array([b"a|caf\xe9"] + [b"x|y%d" % (i % 9) for i in range(299)])))
    return config('{name: s, table: t, split: "|"}', data="on_bad_row: quarantine")


@CASES.refused("column l", "row 3", "70,000", "max_length")
def list_of_70_000_ids(log: Folder) -> str:
    log.write("a.parquet", clicks(50, l=pa.array([list(range(70_000)) if i == 3 else [1] for i in range(50)])))
    return config("l")


@CASES.trains(50, ids=11)
def list_of_70_000_ids_of_which_10_are_kept(log: Folder) -> str:
    log.write("a.parquet", clicks(50, l=pa.array([list(range(70_000)) if i == 3 else [1] for i in range(50)])))
    return config("{name: l, table: t, max_length: 10}")


@CASES.refused("row 5", "column tags", "UTF-8")
def row_of_a_bad_list_item(log: Folder) -> str:
    log.write("a.parquet", _bad_item())
    return config("tags")


@CASES.trains(29, quarantined=1)
def bad_list_item_set_aside(log: Folder) -> str:
    log.write("a.parquet", _bad_item())
    return config("tags", data="on_bad_row: quarantine")


def _bad_item() -> dict[str, Any]:
    """30 rows of three strings; the second one of row 5 is not UTF-8."""
    items: list[bytes | None] = [f"t{i % 7}".encode() for i in range(90)]
    items[16] = b"\xff\xfe"
    offsets = pa.array(np.arange(0, 91, 3, dtype=np.int32))
    return {"tags": pa.ListArray.from_arrays(offsets, as_text(items)), "y": every([0, 1], 30)}


@CASES.trains(300, ids=0)
def buckets_of_nothing_but_nulls(log: Folder) -> str:
    log.write("a.parquet", clicks(300, l=pa.nulls(300, pa.float64())))
    return config("{name: l, table: t, num_buckets: 4}")


@CASES.refused("column l", "list", "one number a row")
def buckets_of_lists(log: Folder) -> str:
    log.write("a.parquet", clicks(300, l=every([[1, 2, 3]], 300)))
    return config("{name: l, table: t, num_buckets: 4}")


@CASES.refused("column x", "string", "number is needed")
def buckets_of_numbers_as_text(log: Folder) -> str:
    log.write("a.parquet", {**clicks(300), "x": clicks(300)["x"].cast(pa.string())})
    return config("{name: x, table: t, num_buckets: 4}")


@CASES.trains(180, ids=3, quarantined=120)
def buckets_with_nan_and_infinity(log: Folder) -> str:
    values = [float("nan"), float("inf"), None, 1.0, 2.0]
    log.write("a.parquet", clicks(300, l=every(values, 300)))
    return config("{name: l, table: t, num_buckets: 4, null_id: 99}", data="on_bad_row: quarantine")


_HUNDRED = "[{name: t, dim: 4, num_rows: 100, optimizer: {kind: adagrad, learning_rate: 0.05}}]"


@CASES.trains(300, ids=100)
def identity_ids_modulo(log: Folder) -> str:
    log.write("a.parquet", {**clicks(300), "u": pa.array(np.arange(300) - 5)})
    return config("{name: u, table: t, encoder: {kind: identity, out_of_range: modulo}}", tables=_HUNDRED)


@CASES.refused("feature u", "-5", "0..99", during=True)
def identity_ids_out_of_range(log: Folder) -> str:
    log.write("a.parquet", {**clicks(300), "u": pa.array(np.arange(300) - 5)})
    return config("{name: u, table: t, encoder: {kind: identity}}", tables=_HUNDRED)


@CASES.refused("column u", "num_buckets", _NO_IDS)
def ids_that_became_floats(log: Folder) -> str:
    users = [None if i % 50 == 0 else float(2**53 + 2 * (i % 7)) for i in range(600)]
    log.write("a.parquet", {"u": pa.array(users), "y": clicks()["y"]})
    return config()


@CASES.trains(300, ids=300)
def columns_that_differ_in_case_only(log: Folder) -> str:
    log.write("a.parquet", {"U": pa.array(np.arange(300)), **clicks(300)})
    return config("u", "U")


@CASES.trains(300, ids=40)
def names_with_spaces_quotes_and_lines(log: Folder) -> str:
    names = ["user id", "用户", "a/b", "q\"uo'te", "new\nline"]
    log.write("a.parquet", {**dict.fromkeys(names, clicks(300)["u"]), "y": clicks(300)["y"]})
    return config(*names)


@CASES.trains(300, ids=40)
def names_with_dots_beside_structs(log: Folder) -> str:
    users = pa.array([{"id": i + 1000} for i in range(300)])
    fields = {"user.id": clicks(300)["u"], "user": users, "a": every(range(3), 300), "a.b": every(range(5), 300)}
    log.write("a.parquet", {**fields, "y": clicks(300)["y"]})
    return config("user.id", "a", "a.b")


@CASES.trains(300, ids=60)
def field_of_a_struct(log: Folder) -> str:
    users = pa.array([{"id": i % 50, "home": {"city": f"c{i % 10}"}} for i in range(300)])
    log.write("a.parquet", {"user": users, "y": clicks(300)["y"]})
    return config("user.id", "user.home.city")


@CASES.trains(300, ids=40)
def two_unused_columns_of_one_name(log: Folder) -> str:
    c = clicks(300)
    log.write("a.parquet", pa.table([c["u"], c["x"], c["x"], c["y"]], names=["u", "x", "x", "y"]))
    return config()


@CASES.refused("'u' is used twice")
def two_features_of_one_name(log: Folder) -> str:
    log.write("a.parquet", clicks())
    return config("{name: u, table: t}", "{name: u, column: x, table: t}")


@CASES.trains(400, ids=2)
def dictionary_that_holds_a_value_twice(log: Folder) -> str:
    codes = pa.DictionaryArray.from_arrays(every(range(4), 400, pa.int32()), ["a", "b", "a", "b"])
    log.write("a.parquet", {"u": codes, "y": every([0, 1], 400)})
    return config()


@CASES.trains(600, ids=9)
def shuffled_string_views(log: Folder) -> str:
    log.write("a.parquet", clicks(s=every([f"s{i}" for i in range(9)], 600, pa.string_view())))
    return config("s", data="shuffle: {seed: 1}")


@CASES.trains(None, ids=9)
def split_log_of_string_views(log: Folder) -> str:
    log.write("a.parquet", clicks(s=every([f"s{i}" for i in range(9)], 600, pa.string_view())))
    return config("s", data=BY_U)


@CASES.trains(900, ids=10)
def more_keys_in_a_batch_than_max_rows(log: Folder) -> str:
    log.write("a.parquet", {**clicks(900), "u": pa.array(np.arange(900))})
    return config(tables=TABLES.replace("dim: 4", "dim: 4, max_rows: 10"))


@CASES.refused("arr", _NO_IDS)
def type_that_the_footer_tells(log: Folder) -> str:
    """The file's pages are damaged: whoever reads them to find that a map is no id column fails otherwise."""
    maps = pa.array([[(f"k{i}", i)] for i in range(300)], pa.map_(pa.string(), pa.int64()))
    path = log.write("a.parquet", {"arr": maps, "y": every([0, 1], 300)}, compression="zstd")
    content = bytearray(path.read_bytes())
    content[4:200] = b"\xa5" * 196
    path.write_bytes(content)
    return config("arr")


def test_a_cross_that_is_too_long_is_refused_before_it_is_made(tmp_path: Path) -> None:
    def build(log: Folder) -> str:
        lists = every([list(range(3000))], 4)
        log.write("a.parquet", clicks(4, l=lists, m=lists))
        return config("{name: c, cross: [l, m], table: t}")

    tracemalloc.start()
    try:
        Case("cross", build, Refused(("a.parquet", "row 0", "65,536"))).check(tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # The four rows' combinations alone would be 288 MB.
    assert peak < 100e6


@pytest.mark.parametrize("case", CASES)
def test_ids(case: Case, tmp_path: Path) -> None:
    case.check(tmp_path)

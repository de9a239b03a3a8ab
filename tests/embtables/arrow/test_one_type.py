"""One type for a column whose type differs between files: the rule, its independence of order, and what it keeps."""

from __future__ import annotations

import itertools
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embtables.arrow.one_type import one_type
from embtables.arrow.types import plain_type
from embtables.errors import DataError
from embtables.inputs.columns import feature_ids, plain_ids
from embtables.inputs.times import microseconds
from embtables.inputs.values import BadRowsError, as_float64, one_array
from embtables.pipelines.sources.files.source import open_source
from embtables.schema import Feature

TYPES = [
    pa.null(),
    pa.bool_(),
    *(pa.int8(), pa.int32(), pa.int64(), pa.uint8(), pa.uint32(), pa.uint64()),
    *(pa.float16(), pa.float32(), pa.float64()),
    *(pa.decimal128(9, 2), pa.decimal128(20, 0), pa.decimal256(60, 4)),
    *(pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.binary(4), pa.binary_view()),
    *(pa.dictionary(pa.int8(), pa.string()), pa.dictionary(pa.int32(), pa.binary())),
    *(pa.timestamp("s"), pa.timestamp("ns", "Asia/Tokyo"), pa.timestamp("us", "UTC"), pa.date32(), pa.date64()),
    *(pa.list_(pa.null()), pa.list_(pa.int32()), pa.large_list(pa.uint64()), pa.list_(pa.string(), 2)),
    *(pa.list_view(pa.string_view()), pa.list_(pa.float32())),
    *(pa.struct([("a", pa.int64())]), pa.time64("us"), pa.duration("s")),
]


def merged(kinds: tuple[pa.DataType, ...], *, ids: bool) -> pa.DataType | None:
    try:
        return one_type("c", [(plain_type(k), f"{n}.parquet") for n, k in enumerate(kinds)], ids=ids)
    except DataError:
        return None


@pytest.mark.parametrize("ids", [True, False])
def test_the_order_of_files_does_not_matter(ids: bool) -> None:
    for pair in itertools.combinations(TYPES, 2):
        assert merged(pair, ids=ids) == merged(pair[::-1], ids=ids), pair
    some = np.random.default_rng(0)
    for _ in range(3_000):
        kinds = tuple(TYPES[i] for i in some.integers(0, len(TYPES), 3))
        found = {merged(order, ids=ids) for order in itertools.permutations(kinds)}
        assert len(found) == 1, (kinds, found)


@pytest.mark.parametrize(
    ("a", "b", "number", "ids"),
    [
        (pa.int8(), pa.uint32(), pa.int64(), pa.int64()),
        (pa.int64(), pa.uint64(), pa.decimal128(20, 0), pa.decimal128(20, 0)),
        (pa.uint8(), pa.uint64(), pa.uint64(), pa.uint64()),
        (pa.bool_(), pa.int8(), pa.int64(), pa.int64()),
        (pa.int64(), pa.float32(), pa.float64(), None),
        (pa.decimal128(22, 2), pa.decimal128(24, 4), pa.decimal128(24, 4), pa.decimal128(24, 4)),
        (pa.decimal128(38, 0), pa.decimal128(38, 10), pa.decimal256(48, 10), pa.decimal256(48, 10)),
        (pa.string(), pa.dictionary(pa.int8(), pa.string()), pa.large_string(), pa.large_string()),
        (pa.string_view(), pa.binary(16), pa.large_binary(), pa.large_binary()),
        (pa.timestamp("ms", "UTC"), pa.timestamp("s", "UTC"), pa.timestamp("us", "UTC"), pa.timestamp("us", "UTC")),
        (pa.timestamp("ms", "Asia/Tokyo"), pa.date32(), pa.timestamp("us"), pa.timestamp("us")),
        (pa.list_(pa.null()), pa.list_view(pa.int8()), pa.large_list(pa.int8()), pa.large_list(pa.int8())),
        (pa.string(), pa.int64(), None, None),
        (pa.list_(pa.int64()), pa.int64(), None, None),
        (pa.timestamp("us"), pa.int64(), None, None),
    ],
)
def test_the_rule(a: pa.DataType, b: pa.DataType, number: pa.DataType | None, ids: pa.DataType | None) -> None:
    assert (merged((a, b), ids=False), merged((a, b), ids=True)) == (number, ids)


def test_a_refusal_names_both_files() -> None:
    with pytest.raises(DataError, match=r"b\.parquet, column c: holds double, but int64 in a\.parquet; an id that"):
        one_type("c", [(pa.null(), "0"), (pa.int64(), "a.parquet"), (pa.float64(), "b.parquet")], ids=True)


def test_values_stay_what_they_were(tmp_path: Path) -> None:
    """Ids of signed and unsigned files are the same 64 bits, numbers the same numbers."""
    big = 2**63 + 5
    columns: list[pa.Array] = [
        pa.array([1, -2, None], pa.int64()),
        pa.array([big, 1, None], pa.uint64()),
        pa.array([Decimal(big), Decimal(-2), None], pa.decimal128(20, 0)),
        pa.array([True, False, None]),
        pa.nulls(3),
    ]
    for number, column in enumerate(columns):
        pq.write_table(pa.table({"c": column}), tmp_path / f"{number}.parquet")
    source = open_source(str(tmp_path), "**/*.parquet", quarantine=False)
    whole = one_array(source.read_all(["c"], ids=("c",)).column("c"))
    valid = np.flatnonzero(whole.is_valid().to_numpy(zero_copy_only=False))
    assert plain_ids("c", whole)[valid].tolist() == [1, -2, big - 2**64, 1, big - 2**64, -2, 1, 0]
    assert as_float64("c", whole.drop_null(), fill=None).tolist() == [1, -2, float(big), 1, float(big), -2, 1, 0]


def test_nanoseconds_are_rounded_to_the_past_and_no_time_wraps(tmp_path: Path) -> None:
    pq.write_table(pa.table({"t": pa.array([-1, 999, 1_000], pa.timestamp("ns"))}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"t": pa.array([-1], pa.timestamp("ms"))}), tmp_path / "b.parquet")
    source = open_source(str(tmp_path), "*.parquet", quarantine=False)
    assert source.read_all(["t"]).column("t").cast(pa.int64()).to_pylist() == [-1, 0, 1, -1000]
    far = pa.array([0, 2**62, -(2**62)], pa.timestamp("ms"))
    pq.write_table(pa.table({"t": far}), tmp_path / "c.parquet")
    times = one_array(open_source(str(tmp_path), "*.parquet", quarantine=False).read_all(["t"]).column("t"))
    with pytest.raises(BadRowsError, match="beyond the range of times") as raised:
        microseconds("t", times)
    assert raised.value.rows.tolist() == [5, 6]


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (
            pa.array([[1_000]], pa.list_(pa.timestamp("ms"))),
            pa.array([[1_000, 2_000]], pa.list_(pa.timestamp("ms"), 2)),
            [[1_000_000], [1_000_000, 2_000_000]],
        ),
        (
            pa.array([[1]], pa.list_(pa.timestamp("s"))),
            pa.array([[1_999], None], pa.large_list(pa.timestamp("ns"))),
            [[1_000_000], [1], []],
        ),
        (
            pa.array([[True, False]]),
            pa.array([[Decimal(7)]], pa.list_(pa.decimal128(1, 0))),
            [[1, 0], [7]],
        ),
        (pa.array([[None, None]], pa.list_(pa.null())), pa.array([[None]], pa.large_list(pa.null())), [[], []]),
        (pa.array([[1], []], pa.list_(pa.uint8())), pa.array([[2]], pa.list_view(pa.int64())), [[1], [], [2]]),
    ],
)
def test_items_of_lists_are_made_one_type(a: pa.Array, b: pa.Array, expected: list[list[int]], tmp_path: Path) -> None:
    for number, column in enumerate((a, b)):
        pq.write_table(pa.table({"l": column}), tmp_path / f"{number}.parquet")
    source = open_source(str(tmp_path), "*.parquet", quarantine=False)
    lists = one_array(source.read_all(["l"], ids=("l",)).column("l"))
    ids = feature_ids(Feature(name="l", table="t"), {"l": lists}, None)
    ends = np.cumsum(ids.lengths_of(len(lists)))
    assert [part.tolist() for part in np.split(ids.values, ends[:-1])] == expected


def test_a_column_within_a_struct_or_a_list_of_structs_is_read_by_its_path(tmp_path: Path) -> None:
    users = [{"id": 1, "home": {"city": "Oslo"}}, None, {"id": 3, "home": None}]
    carts = [[{"item": "a", "n": 1}, {"item": None, "n": 2}], [], None]
    table = pa.table({"user": users, "cart": carts, "user.id": [7, 8, 9]})
    pq.write_table(table, tmp_path / "a.parquet")
    source = open_source(str(tmp_path), "*.parquet", quarantine=False)
    found = source.read_all(["user.home.city", "cart.item", "user.id", "cart.n"])
    assert found.column("user.home.city").to_pylist() == ["Oslo", None, None]
    assert found.column("cart.item").to_pylist() == [["a", None], [], None]
    assert found.column("user.id").to_pylist() == [7, 8, 9]  # a column of that very name comes first
    assert found.column("cart.n").to_pylist() == [[1, 2], [], None]
    with pytest.raises(DataError, match=r"column user\.age: is missing"):
        source.column_type("user.age")

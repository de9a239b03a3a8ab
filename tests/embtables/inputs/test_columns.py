"""Ids of columns of every kind, against a plain Python reading of the same values."""

from __future__ import annotations

import uuid
from decimal import Decimal
from itertools import product

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embtables.arrow.types import take_column
from embtables.errors import ConfigError, DataError
from embtables.ids.cross import cross_ids
from embtables.ids.strings import hash_strings
from embtables.inputs.columns import Ids, feature_ids
from embtables.inputs.values import BadRowsError, as_float64, one_array, to_float32
from embtables.schema import Feature


def ids_of(array: pa.Array, weights: pa.Array | None = None, **options: object) -> list[list[int]]:
    found = ids_and_weights(array, weights, **options)
    return [row for row, _ in found]


def ids_and_weights(
    array: pa.Array, weights: pa.Array | None = None, **options: object
) -> list[tuple[list[int], object]]:
    if weights is not None:
        options["weights_column"] = "w"
    feature = Feature.model_validate({"name": "c", "table": "t", **options})
    columns = {"c": one_array(array)} | ({} if weights is None else {"w": one_array(weights)})
    return _rows(feature_ids(feature, columns, None), len(array))


def _rows(ids: Ids, n: int) -> list[tuple[list[int], object]]:
    ends = np.cumsum(ids.lengths_of(n))
    starts = ends - ids.lengths_of(n)
    return [
        (ids.values[a:b].tolist(), None if ids.weights is None else ids.weights[a:b].tolist())
        for a, b in zip(starts, ends, strict=True)
    ]


def hashed(*texts: str | bytes) -> list[int]:
    found: list[int] = hash_strings(pa.array([t.encode() if isinstance(t, str) else t for t in texts])).tolist()
    return found


BIG = 2**63 + 5


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (pa.array([1, None, -3], pa.int8()), [[1], [], [-3]]),
        (pa.array([BIG, None], pa.uint64()), [[BIG - 2**64], []]),
        (pa.array([True, None, False]), [[1], [], [0]]),
        (pa.array([Decimal(7), None, Decimal(BIG), Decimal(-1)], pa.decimal128(20, 0)), [[7], [], [BIG - 2**64], [-1]]),
        (pa.array([Decimal(7), Decimal(-1)], pa.decimal256(60, 0)).slice(1), [[-1]]),
        (pa.array([1, None], pa.date32()), [[86_400_000_000], []]),
        (pa.array([1, None], pa.timestamp("s", "Asia/Tokyo")), [[1_000_000], []]),
        (pa.array(["a", None, ""]), [hashed("a"), [], hashed("")]),
        (pa.array(["a", None, "a longer string than a view holds"], pa.string_view()),
         [hashed("a"), [], hashed("a longer string than a view holds")]),
        (pa.array([b"\xff", None], pa.binary_view()), [hashed(b"\xff"), []]),
        (pa.array([b"abcd", None], pa.binary(4)), [hashed("abcd"), []]),
        (pa.array([uuid.UUID(int=5).bytes], pa.uuid()), [hashed(uuid.UUID(int=5).bytes)]),
        (pa.array(["a", None, "a"]).dictionary_encode(), [hashed("a"), [], hashed("a")]),
        (pa.array([5, None, 5]).dictionary_encode(), [[5], [], [5]]),
        (pa.nulls(2), [[], []]),
        (pa.array([[1, None, 2], None, []]), [[1, 2], [], []]),
        (pa.array([["a"], None], pa.list_view(pa.string_view())), [hashed("a"), []]),
        (pa.array([[1, 2], None], pa.list_(pa.uint8(), 2)), [[1, 2], []]),
        (pa.array([[], None], pa.list_(pa.null())), [[], []]),
    ],
)  # fmt: skip
def test_ids_of_every_kind(array: pa.Array, expected: list[list[int]]) -> None:
    assert ids_of(array) == expected
    chunks = pa.chunked_array([array.slice(0, 1), array.slice(1)])
    assert ids_of(chunks) == expected


@pytest.mark.parametrize(
    ("array", "rows"),
    [
        (pa.array([Decimal(1), Decimal(2**64)], pa.decimal128(25, 0)), [1]),
        (pa.array([Decimal(-(2**63) - 1), Decimal(1)], pa.decimal128(25, 0)), [0]),
        (pa.array([b"a", b"\xff"]).view(pa.string()), [1]),
        (pa.array([[b"a", b"b"], [], [b"c", b"\xff"]], pa.list_(pa.binary())).cast(pa.list_(pa.binary())), None),
    ],
)
def test_values_that_are_no_ids_name_their_rows(array: pa.Array, rows: list[int] | None) -> None:
    if rows is None:
        assert len(ids_of(array)) == 3  # bytes may be anything
        return
    with pytest.raises(BadRowsError) as raised:
        ids_of(array)
    assert raised.value.rows.tolist() == rows


def test_a_fault_within_a_list_names_the_row_of_the_table() -> None:
    items = pa.array([b"a", b"b", b"\xff", b"c", b"\xfe"]).view(pa.string())
    lists = pa.ListArray.from_arrays(pa.array([0, 2, 2, 4, 5], pa.int32()), items)
    with pytest.raises(BadRowsError, match="not UTF-8") as raised:
        ids_of(lists)
    assert raised.value.rows.tolist() == [2, 3]


@pytest.mark.parametrize(
    "array", [pa.array([0.5]), pa.array([Decimal("1.5")]), pa.array([{"a": 1}]), pa.array([[[1]]])]
)
def test_types_that_cannot_be_ids_are_refused(array: pa.Array) -> None:
    with pytest.raises(DataError, match="which cannot be ids"):
        ids_of(array)


def test_a_null_id_stands_for_nulls_and_null_lists() -> None:
    assert ids_of(pa.array([1, None]), null_id=7) == [[1], [7]]
    assert ids_of(pa.array([1, None], pa.uint64()), null_id=2**64 - 1) == [[1], [-1]]
    assert ids_of(pa.array(["5", None]), null_id=5) == [hashed("5"), hashed("5")]
    assert ids_of(pa.array([[1, None], None, []]), null_id=7) == [[1], [7], []]
    assert ids_of(pa.array(["a|b", None, ""]), null_id="none", split="|") == [hashed("a", "b"), hashed("none"), []]
    assert ids_of(pa.array([1, None]), null_id="007") == [[1], [7]]
    found = ids_and_weights(pa.array([[1, 2], None]), pa.array([[0.5, 2.0], None]), null_id=9)
    assert found == [([1, 2], [0.5, 2.0]), ([9], [1.0])]
    with pytest.raises(DataError, match="null_id 'x' is not an integer"):
        ids_of(pa.array([1, None]), null_id="x")


@pytest.mark.parametrize("null_id", [2**64, -(2**63) - 1, "1" * 30])
def test_a_null_id_has_64_bits(null_id: int | str) -> None:
    with pytest.raises(ConfigError, match="an id has 64 bits"):
        Feature(name="c", table="t", null_id=null_id)


def test_a_null_id_takes_its_weight_with_it() -> None:
    found = ids_and_weights(pa.array([[1, None, 3], []]), pa.array([[0.5, None, 2.0], []]))
    assert found == [([1, 3], [0.5, 2.0]), ([], [])]
    assert ids_and_weights(pa.array([4, None]), pa.array([0.5, None])) == [([4], [0.5]), ([], [])]
    with pytest.raises(BadRowsError, match="is null") as raised:
        ids_and_weights(pa.array([[1], [1, 2]]), pa.array([[0.5], [1.0, None]]))
    assert raised.value.rows.tolist() == [1]


IDS = st.lists(st.lists(st.integers(0, 5), max_size=4), min_size=3, max_size=3)


@settings(deadline=None, max_examples=150)
@given(IDS, IDS, IDS, st.none() | st.integers(1, 6))
def test_a_cross_is_every_combination_or_the_last_of_them(
    a: list[list[int]], b: list[list[int]], c: list[list[int]], max_length: int | None
) -> None:
    feature = Feature(name="x", table="t", cross=("a", "b", "c"), max_length=max_length)
    kind = pa.list_(pa.int64())
    ids = feature_ids(feature, {n: pa.array(v, kind) for n, v in zip("abc", (a, b, c), strict=True)}, None)
    for row, (found, _) in enumerate(_rows(ids, 3)):
        combinations = list(product(a[row], b[row], c[row]))[-(max_length or 10**6) :]
        parts = [np.array(p, np.int64) for p in zip(*combinations, strict=True)]
        assert found == (cross_ids(*parts).tolist() if parts else [])


def test_a_cross_of_long_lists_is_refused_before_it_is_made() -> None:
    many = pa.array([list(range(60_000))] * 3)
    columns = {"a": many, "b": many, "c": many}
    with pytest.raises(BadRowsError, match="more than 65,536") as raised:
        feature_ids(Feature(name="x", table="t", cross=("a", "b")), columns, None)
    assert raised.value.rows.tolist() == [0, 1, 2]
    last = feature_ids(Feature(name="x", table="t", cross=("a", "b", "c"), max_length=2), columns, None)
    expected = cross_ids(*(np.array(v, np.int64) for v in ([59_999] * 2, [59_999] * 2, [59_998, 59_999])))
    assert last.values.reshape(3, 2).tolist() == [expected.tolist()] * 3


def test_numbers_are_finite_as_float32() -> None:
    assert as_float64("x", pa.array([1.5, None, float("nan")]), fill=0.0, fill_nan=-1.0).tolist() == [1.5, 0.0, -1.0]
    with pytest.raises(BadRowsError, match="holds nan") as raised:
        as_float64("x", pa.array([1.0, float("nan")]), fill=None)
    assert raised.value.rows.tolist() == [1]
    with pytest.raises(BadRowsError, match=r"holds 1e\+300, which a float32 cannot hold") as raised:
        to_float32("x", np.array([1e38, 1e300, -1e39]))
    assert raised.value.rows.tolist() == [1, 2]


def test_a_struct_column_is_read_by_its_path_also_in_a_request() -> None:
    table = pa.table({"user": [{"id": 1}, None], "a.b": [1, 2], "a": [{"b": 3}, {"b": 4}]})
    assert ids_of(take_column(table, "user.id")) == [[1], []]
    assert ids_of(take_column(table, "a.b")) == [[1], [2]]
    assert take_column(table, "user.name") is None

"""Columns that predictions carry over: one schema for all files, every value as it was, or a refusal with the files."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embtables.errors import BadFileError, DataError
from embtables.pipelines.sources.files.source import open_source
from embtables.pipelines.trained.carried import CarriedRows

Carried = Callable[..., CarriedRows]
ROWS = 3


@pytest.fixture
def carried(tmp_path: Path) -> Carried:
    """The carried rows of some files, each an array (the column `c`) or a table."""

    def make(*files: pa.Array | pa.Table, columns: list[str] | None = None) -> CarriedRows:
        for number, content in enumerate(files):
            table = content if isinstance(content, pa.Table) else pa.table({"c": content})
            pq.write_table(table, tmp_path / f"{number}.parquet", row_group_size=2)
        return CarriedRows(open_source(str(tmp_path), "*.parquet", quarantine=False), columns)

    return make


def moment(hour: int, zone: str | None = None) -> datetime:
    return datetime(2024, 7, 1, hour, tzinfo=None if zone is None else ZoneInfo(zone))


WIDENED: dict[str, tuple[list[pa.Array], pa.DataType]] = {
    "widths": ([pa.array([1, None], pa.int32()), pa.array([2**40], pa.int64())], pa.int64()),
    "signs": ([pa.array([1, -1], pa.int8()), pa.array([200], pa.uint8())], pa.int16()),
    "uint64 and int64": ([pa.array([2**64 - 1], pa.uint64()), pa.array([-5])], pa.decimal128(20, 0)),
    "int64 and uint64": ([pa.array([-5]), pa.array([2**63], pa.uint64()), pa.array([7])], pa.decimal128(20, 0)),
    "integers and floats": ([pa.array([2**53]), pa.array([0.5, None])], pa.float64()),
    "float widths": ([pa.array([0.5], pa.float16()), pa.array([0.25], pa.float32())], pa.float32()),
    "decimals": (
        [pa.array([Decimal("1.50")], pa.decimal128(5, 2)), pa.array([Decimal("2.1234")], pa.decimal128(20, 4))],
        pa.decimal128(20, 4),
    ),
    "strings": ([pa.array(["a", None]), pa.array(["b"], pa.large_string())], pa.large_string()),
    "views": ([pa.array(["a", None], pa.string_view()), pa.array(["b"])], pa.large_string()),
    "categories": ([pa.array(["a", None, "a"]).dictionary_encode(), pa.array(["b"])], pa.string()),
    "strings and categories": ([pa.array(["b"]), pa.array(["a", None]).dictionary_encode()], pa.string()),
    "numbers in a dictionary": ([pa.array([7, None]).dictionary_encode(), pa.array([8])], pa.int64()),
    "nulls first": ([pa.nulls(3), pa.array(["a"]).dictionary_encode()], pa.string()),
    "nulls between": ([pa.array([1]), pa.nulls(2), pa.array([2])], pa.int64()),
    "units": (
        [pa.array([moment(1)], pa.timestamp("ms")), pa.array([moment(2)], pa.timestamp("us"))],
        pa.timestamp("us"),
    ),
    "days": ([pa.array([date(2024, 1, 1)]), pa.array([date(2024, 1, 2)], pa.date64())], pa.date32()),
    "zones": (
        [
            pa.array([moment(3, "Europe/Berlin")], pa.timestamp("us", "Europe/Berlin")),
            pa.array([moment(2).replace(tzinfo=UTC)], pa.timestamp("us", "UTC")),
        ],
        pa.timestamp("us", "UTC"),
    ),
    "lists": ([pa.array([[1], None], pa.list_(pa.int32())), pa.array([[2**40], []])], pa.list_(pa.int64())),
    "lists of nothing": ([pa.array([[], None], pa.list_(pa.null())), pa.array([["a"]])], pa.list_(pa.string())),
    "lists of categories": (
        [pa.array([["a"], ["b"]], pa.list_(pa.dictionary(pa.int8(), pa.string()))), pa.array([["c"], None])],
        pa.list_(pa.string()),
    ),
    "lists of views": (
        [pa.array([["a"], None], pa.list_(pa.string_view())), pa.array([["c"]])],
        pa.list_(pa.large_string()),
    ),
    "structs": (
        [pa.array([{"a": 1, "b": None}]), pa.array([{"a": 2, "b": "x"}])],
        pa.struct([("a", pa.int64()), ("b", pa.string())]),
    ),
    "maps": (
        [pa.array([[("k", 1)]], pa.map_(pa.string(), kind)) for kind in (pa.int32(), pa.int64())],
        pa.map_(pa.string(), pa.int64()),
    ),
}


@pytest.mark.parametrize("kind", WIDENED)
def test_types_that_differ_become_one_and_values_stay(carried: Carried, tmp_path: Path, kind: str) -> None:
    arrays, expected = WIDENED[kind]
    values = [value for array in arrays for value in array.to_pylist()]
    rows = carried(*arrays)
    (found,) = rows.schema.types
    # Writers name the items of a list in two ways.
    assert str(found).replace("element", "item") == str(expected).replace("element", "item")
    tables = [rows.take(1) for _ in values]
    assert all(table.schema == rows.schema for table in tables)
    whole = pa.concat_tables(tables)
    assert whole.column("c").to_pylist() == values
    pq.write_table(whole, tmp_path / "out.bin")
    assert pq.read_table(tmp_path / "out.bin").column("c").to_pylist() == values


KEPT = [
    pa.array([{"a": [1]}, None], pa.struct([("a", pa.list_(pa.int8()))])),
    pa.array([b"0123456789abcdef", None], pa.uuid()),
    pa.array(["a", None], pa.string_view()),
    pa.array(["a", "b"]).dictionary_encode(),
    pa.array([1, None], pa.time64("us")),
    pa.array([[1.0, 2.0], None], pa.list_(pa.float32(), 2)),
    pa.nulls(2),
]


@pytest.mark.parametrize("array", KEPT, ids=lambda array: str(array.type))
def test_types_that_agree_stay(carried: Carried, array: pa.Array) -> None:
    rows = carried(array, array)
    assert str(rows.schema.field("c").type).replace("element", "item") == str(array.type)
    assert rows.take(4).column("c").to_pylist() == array.to_pylist() * 2


def test_flags_and_metadata_of_schemas_may_differ(carried: Carried) -> None:
    strict = pa.schema([pa.field("c", pa.int64(), nullable=False, metadata={"a": "b"})], metadata={"pandas": "{}"})
    rows = carried(pa.table({"c": [1]}).cast(strict), pa.array([None, 2], pa.int64()))
    assert rows.schema.field("c").nullable
    assert rows.schema.metadata is None
    assert rows.take(3).column("c").to_pylist() == [1, None, 2]


def test_categories_of_all_files_may_be_more_than_their_indices_number(carried: Carried) -> None:
    arrays = [
        pa.array([f"{letter}{n}" for n in range(100)]).dictionary_encode().cast(pa.dictionary(pa.int8(), pa.string()))
        for letter in "abc"
    ]
    rows = carried(*arrays)
    assert rows.schema.field("c").type == pa.dictionary(pa.int32(), pa.string())
    assert rows.take(300).column("c").to_pylist() == [value for array in arrays for value in array.to_pylist()]


def test_the_index_that_is_widest_is_kept(carried: Carried) -> None:
    wide = pa.array(["a"]).dictionary_encode().cast(pa.dictionary(pa.int64(), pa.string()))
    assert carried(pa.array(["b"]).dictionary_encode(), wide).take(2).column("c").to_pylist() == ["b", "a"]


REFUSED: dict[str, tuple[pa.Array, pa.Array]] = {
    "number and text": (pa.array([1]), pa.array(["a"])),
    "bool and number": (pa.array([True]), pa.array([1])),
    "time without and with a zone": (pa.array([0], pa.timestamp("us")), pa.array([0], pa.timestamp("us", "UTC"))),
    "list and scalar": (pa.array([[1]]), pa.array([1])),
    "struct and text": (pa.array([{"a": 1}]), pa.array(["a"])),
    "fields of a struct": (pa.array([{"a": 1}]), pa.array([{"a": "x"}])),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_types_with_nothing_in_common_are_refused_with_both_files(carried: Carried, kind: str) -> None:
    one, other = REFUSED[kind]
    with pytest.raises(DataError, match=r"file .*1.parquet, column c: holds .*, but .* in .*0.parquet; .*--columns$"):
        carried(one, other)


def test_an_integer_that_the_common_type_cannot_hold_is_refused_with_file_and_column(carried: Carried) -> None:
    rows = carried(pa.array([0.5]), pa.array([2**53 + 1]))
    with pytest.raises(DataError, match=r"file .*1.parquet, column c: cannot be written as double.*--columns$"):
        rows.take(2)


def test_columns_that_only_some_files_have_must_be_left_out(carried: Carried) -> None:
    one, other = pa.table({"a": [1], "b": [2]}), pa.table({"c": [3], "a": [4]})
    for files, name, file in (((one, other), "b", 1), ((other, one), "c", 1)):
        with pytest.raises(DataError, match=rf"file .*{file}.parquet, column {name}: is missing; .*--columns$"):
            carried(*files)
    assert carried(one, other, columns=["a"]).take(2).column("a").to_pylist() == [1, 4]


def test_a_name_that_is_there_twice_must_be_left_out(carried: Carried) -> None:
    table = pa.table([pa.array([1]), pa.array([2]), pa.array([3])], names=["a", "z", "z"])
    with pytest.raises(DataError, match=r"file .*0.parquet, column z: is there 2 times; name the columns .*--columns$"):
        carried(table)
    assert carried(table, columns=["a"]).take(1).column("a").to_pylist() == [1]


def test_partitions_are_carried_as_one_type(tmp_path: Path) -> None:
    for name, rows in (("p=1", 2), ("p=2", 3)):
        (tmp_path / name).mkdir()
        pq.write_table(pa.table({"c": range(rows)}), tmp_path / name / "x.parquet")
    rows = CarriedRows(open_source(str(tmp_path), "**/*.parquet", quarantine=False), ["p"])
    assert [str(value) for value in rows.take(5).column("p").to_pylist()] == ["1", "1", "2", "2", "2"]


def test_pieces_do_not_depend_on_files_and_row_groups(carried: Carried) -> None:
    rows = carried(*(pa.array(range(start, start + 5)) for start in (0, 5, 10)))
    pieces: list[Any] = []
    for size in (4, 0, 1, 7, 3):
        piece = rows.take(size)
        assert piece.num_rows == size
        pieces += piece.column("c").to_pylist()
    assert pieces == list(range(15))
    with pytest.raises(DataError, match="ended 1 rows early: the files changed"):
        rows.take(1)


def test_damaged_pages_are_reported_with_the_file(carried: Carried, tmp_path: Path) -> None:
    path = tmp_path / "0.parquet"
    rows = carried(pa.array([f"text {n}" for n in range(1000)]))
    content = bytearray(path.read_bytes())
    content[4:200] = bytes(196)
    path.write_bytes(bytes(content))
    with pytest.raises(BadFileError, match=r"file .*0.parquet: cannot be read as parquet"):
        rows.take(1000)

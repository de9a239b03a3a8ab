"""Side tables: the columns they add, the keys that meet whatever their types, what is refused before a row is read."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embtables.errors import ConfigError, DataError
from embtables.pipelines.config import RunConfig
from embtables.pipelines.sources.log import Log
from embtables.pipelines.sources.rows.join import SideTable
from embtables.schema import Join, json_schema, validate

Make = Callable[..., RunConfig]


@pytest.fixture
def side(tmp_path: Path) -> Callable[..., Join]:
    """A side table of some files (each a table or its columns), and its join."""

    def make(*files: pa.Table | Mapping[str, Any], key: str = "k", name: str = "side", **join: Any) -> Join:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        for number, content in enumerate(files):
            table = content if isinstance(content, pa.Table) else pa.table(dict(content))
            pq.write_table(table, folder / f"{number}.parquet")
        return Join(path=str(folder), key=key, **join)

    return make


def looked_up(join: Join, keys: Any, column: str = "v") -> list[Any]:
    table = SideTable(join).add_to(pa.table({join.key: keys}))
    found: list[Any] = table.column(column).to_pylist()
    return found


KINDS: Mapping[str, list[pa.Array]] = {
    "integers": [
        *(pa.array([1, 2, 3], kind) for kind in (pa.int8(), pa.int16(), pa.int64(), pa.uint8(), pa.uint64())),
        pa.array([Decimal(1), Decimal(2), Decimal(3)], pa.decimal128(20, 0)),
        pa.array([1, 2, 3], pa.int32()).dictionary_encode(),
    ],
    "beyond 2^63": [
        pa.array([2**63, 2**63 + 1, 2**64 - 1], pa.uint64()),
        pa.array([-(2**63), -(2**63) + 1, -1], pa.int64()),
        pa.array([Decimal(2**63 + n) for n in (0, 1)] + [Decimal(2**64 - 1)], pa.decimal128(20, 0)),
    ],
    "text": [
        *(pa.array(["a", "é", ""], kind) for kind in (pa.string(), pa.large_string(), pa.string_view())),
        *(pa.array([b"a", "é".encode(), b""], kind) for kind in (pa.binary(), pa.large_binary(), pa.binary_view())),
        pa.array(["a", "é", ""]).dictionary_encode(),
        pa.array(["a", "é", ""], pa.large_string()).dictionary_encode(),
    ],
    "uuid": [
        pa.array([uuid.UUID(int=n).bytes for n in (1, 2, 3)], pa.uuid()),
        pa.array([uuid.UUID(int=n).bytes for n in (1, 2, 3)], pa.binary(16)),
        pa.array([uuid.UUID(int=n).bytes for n in (1, 2, 3)], pa.binary()),
    ],
    "days": [
        pa.array([date(2024, 1, day) for day in (1, 2, 3)], pa.date32()),
        pa.array([date(2024, 1, day) for day in (1, 2, 3)], pa.date64()),
        *(
            pa.array([datetime(2024, 1, day) for day in (1, 2, 3)], pa.timestamp(unit))
            for unit in ("s", "ms", "us", "ns")
        ),
        pa.array([datetime(2024, 1, day, tzinfo=UTC) for day in (1, 2, 3)], pa.timestamp("us", "Europe/Berlin")),
    ],
    "bool": [pa.array([False, True]), pa.array([0, 1]), pa.array([0, 1], pa.uint8())],
}
PAIRS = [(kind, i, j) for kind, arrays in KINDS.items() for i in range(len(arrays)) for j in range(len(arrays))]


@pytest.mark.parametrize(("kind", "i", "j"), PAIRS)
def test_equal_keys_meet_whatever_their_width_and_encoding(
    side: Callable[..., Join], kind: str, i: int, j: int
) -> None:
    of_log, of_side = KINDS[kind][i], KINDS[kind][j]
    join = side({"k": of_side, "v": [f"row {n}" for n in range(len(of_side))]})
    order = pa.array([len(of_log) - 1, 0, 1, 0])
    keys = pa.chunked_array([pa.concat_arrays([of_log.slice(n, 1) for n in order.to_pylist()])])
    assert looked_up(join, keys) == [f"row {n}" for n in order.to_pylist()]


@settings(deadline=None, max_examples=60)
@given(
    known=st.lists(st.one_of(st.none(), st.integers(-3, 12)), max_size=8, unique=True),
    wanted=st.lists(st.one_of(st.none(), st.integers(-3, 12)), max_size=12),
    cuts=st.lists(st.integers(0, 12), max_size=3),
)
def test_a_lookup_is_that_of_a_dict_and_null_keys_meet_nothing(
    tmp_path_factory: pytest.TempPathFactory, known: list[int | None], wanted: list[int | None], cuts: list[int]
) -> None:
    path = tmp_path_factory.mktemp("side") / "side.parquet"
    pq.write_table(pa.table({"k": pa.array(known, pa.int16()), "v": pa.array(range(len(known)), pa.int64())}), path)
    edges = [0, *sorted(min(cut, len(wanted)) for cut in cuts), len(wanted)]
    chunks = [pa.array(wanted[a:b], pa.int64()) for a, b in pairwise(edges)]
    expected = {key: n for n, key in enumerate(known) if key is not None}
    got = looked_up(Join(path=str(path), key="k", on_missing="null"), pa.chunked_array(chunks))
    assert got == [expected.get(key) if key is not None else None for key in wanted]


def test_two_null_keys_are_no_duplicate_but_two_encodings_of_a_key_are(side: Callable[..., Join]) -> None:
    join = side({"k": ["a", None]}, {"k": pa.array([None, "b"]).dictionary_encode()}, on_missing="null")
    assert SideTable(join).columns == ()
    with pytest.raises(DataError, match=r"column k: holds b'b' 2 times \(1 keys are not unique\)"):
        SideTable(side({"k": ["a", "b"]}, {"k": pa.array([b"b"], pa.binary())}))


@pytest.mark.parametrize("on_missing", ["error", "null"])
def test_null_and_missing_keys_by_on_missing(side: Callable[..., Join], on_missing: str) -> None:
    join = side({"k": [1, 2, None], "v": ["a", "b", "c"]}, on_missing=on_missing)
    for keys, example in ((pa.array([1, None]), "None"), (pa.array([7, 2, 7, 8]), "7"), (pa.nulls(2), "None")):
        if on_missing == "error":
            with pytest.raises(DataError, match=rf"keys of the log are missing, for example {example};"):
                looked_up(join, keys)
        else:
            assert set(looked_up(join, keys)) <= {"a", "b", None}


@pytest.mark.parametrize("written", ["null", "'null'", '"null"', "~", ""])
def test_a_bare_null_is_the_word(written: str) -> None:
    import yaml

    join = validate(Join, yaml.safe_load(f"{{path: side, key: k, on_missing: {written}}}"))
    assert join.on_missing == "null"
    assert validate(Join, join.model_dump(mode="json")) == join


def test_editors_take_a_bare_null_too() -> None:
    assert '"type": "null"' in json_schema(Join).split('"on_missing"')[1]


def test_what_on_missing_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"on_missing: Input should be 'error' or 'null' \(received False\)"):
        validate(Join, {"path": "side", "key": "k", "on_missing": False})


def test_a_column_listed_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'columns' names 'v' twice"):
        validate(Join, {"path": "side", "key": "k", "columns": ["v", "w", "v"]})


def test_files_of_a_side_table_may_differ_in_flags_widths_and_order_of_columns(side: Callable[..., Join]) -> None:
    first = pa.table({"k": pa.array([1, 2], pa.int32()), "v": ["a", "b"]})
    strict = pa.schema([pa.field("v", pa.string(), nullable=False), pa.field("k", pa.int64(), nullable=False)])
    second = pa.table({"v": ["c", "d"], "k": [3, 4]}).cast(strict)
    third = {"k": pa.array([5, 6], pa.uint64()), "v": pa.array(["e", None], pa.string_view())}
    fourth = {"k": pa.array([2**63], pa.uint64()), "v": pa.array(["f"]).dictionary_encode()}
    join = side(first, second, third, fourth)
    keys = pa.array([2, 4, 6, 2**63, 5], pa.uint64())
    assert looked_up(join, keys) == ["b", "d", None, "f", "e"]


def test_the_key_among_the_columns_is_the_logs_own(side: Callable[..., Join], make_config: Make) -> None:
    content = {"user": list(range(40)), "town": ["Ulm", "Rom"] * 20}
    join = side(content, key="user", columns=["user", "town"])
    assert SideTable(join).columns == ("town",)
    under_prefix = side(content, key="user", columns=["user", "town"], prefix="p_")
    assert SideTable(under_prefix).columns == ("p_user", "p_town")
    other = side({"id": list(range(40)), "town": ["Ulm"] * 40}, key="user", side_key="id", columns=["id"], name="ids")
    assert SideTable(other).columns == ("id",)
    config = make_config(**{"data.join": [join.model_dump(mode="json")]})
    log = Log(config, config.data)
    rows = log.rows(log.blocks(0, None)[0], None, ["user", "town"]).table
    assert rows.column("town").to_pylist() == [("Ulm", "Rom")[user % 2] for user in rows.column("user").to_pylist()]


def test_a_column_that_would_be_there_twice_is_refused_with_both_owners(
    side: Callable[..., Join], make_config: Make
) -> None:
    prices = {"user": list(range(40)), "price": [1.0] * 40, "town": ["Ulm"] * 40}
    join = side(prices, key="user").model_dump(mode="json")

    def opened(*joins: Mapping[str, Any]) -> Log:
        config = make_config(**{"data.join": list(joins)})
        return Log(config, config.data)

    twice = (
        r"side .*side, column price: would become the column price, which the log \(.*\.parquet\) has already; set pref"
    )
    with pytest.raises(DataError, match=twice):
        opened(join)
    assert opened({**join, "columns": ["town"]})
    assert opened({**join, "prefix": "user_"})
    other = side(prices, key="user", name="other", columns=["town"]).model_dump(mode="json")
    with pytest.raises(DataError, match=r"side .*other, column town: .* which the side table .*side has already"):
        opened({**join, "columns": ["town"]}, other)
    assert opened({**join, "columns": ["town"]}, {**other, "prefix": "second_"})
    with pytest.raises(DataError, match=r"column rice: would become the column price, which the log"):
        opened(side({"user": [1], "rice": [1]}, key="user", name="third", prefix="p").model_dump(mode="json"))


REFUSED: Mapping[str, tuple[pa.Array, str]] = {
    "float": (pa.array([1.0]), "holds double, which cannot be the key of a join; cast it to an integer"),
    "list": (pa.array([[1]]), r"holds list<element: int64>, which cannot be the key of a join$"),
    "struct": (pa.array([{"a": 1}]), r"holds struct<a: int64>, which cannot be the key of a join$"),
    "time of day": (pa.array([1], pa.time64("us")), r"holds time64\[us\], which cannot be the key"),
    "decimal": (pa.array([Decimal("1.5")], pa.decimal128(9, 1)), r"holds decimal128\(9, 1\), which cannot be the key"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_types_that_cannot_be_keys_are_refused_on_both_sides(
    side: Callable[..., Join], tmp_path: Path, make_config: Make, kind: str
) -> None:
    array, message = REFUSED[kind]
    with pytest.raises(DataError, match=rf"side .*, column k: {message}"):
        SideTable(side({"k": array}))
    log = tmp_path / "other-log"
    log.mkdir()
    pq.write_table(pa.table({"k": array}), log / "a.parquet")
    join = side({"k": [1], "v": [1]}, name="plain")
    config = make_config(**{"data.path": str(log), "data.join": [join.model_dump(mode="json")]})
    with pytest.raises(DataError, match=rf"file .*a.parquet, column k: {message}"):
        Log(config, config.data)


@pytest.mark.parametrize(
    ("log", "of_side"),
    [
        (pa.array([1]), pa.array(["1"])),
        (pa.array(["2024-01-01"]), pa.array([date(2024, 1, 1)])),
        (pa.array([1_700_000_000]), pa.array([1], pa.timestamp("s"))),
    ],
)
def test_keys_of_other_kinds_are_refused_with_both_types(
    side: Callable[..., Join], make_config: Make, tmp_path: Path, log: pa.Array, of_side: pa.Array
) -> None:
    (tmp_path / "other-log").mkdir()
    pq.write_table(pa.table({"k": log}), tmp_path / "other-log" / "a.parquet")
    join = side({"k": of_side, "v": [1]})
    config = make_config(**{"data.path": str(tmp_path / "other-log"), "data.join": [join.model_dump(mode="json")]})
    with pytest.raises(DataError, match=r"column k: holds .*, but the key k of the side table .*side holds "):
        Log(config, config.data)
    with pytest.raises(DataError, match=r"column k: holds"):
        looked_up(join, log)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (pa.array([1500], pa.timestamp("ns")), "holds times with nanoseconds"),
        (pa.array([2**61], pa.timestamp("ms")), "beyond the range of times, which cannot be the key"),
        (pa.array([Decimal(2**64)], pa.decimal128(38, 0)), "more than 64 bits, which cannot be the key"),
    ],
)
def test_keys_beyond_what_is_compared_are_refused_not_rounded(
    side: Callable[..., Join], key: pa.Array, message: str
) -> None:
    with pytest.raises(DataError, match=rf"column k: .*{message}"):
        SideTable(side({"k": key}))


def test_a_side_table_whose_files_disagree_is_refused_with_the_file(side: Callable[..., Join]) -> None:
    with pytest.raises(DataError, match=r"file .*1.parquet, column v: is missing; the file has: k"):
        SideTable(side({"k": [1], "v": ["a"]}, {"k": [2]}))
    with pytest.raises(DataError, match=r"file .*0.parquet, column w: is missing"):
        SideTable(side({"k": [1]}, {"k": [2], "w": ["a"]}, name="later"))
    with pytest.raises(DataError, match=r"file .*1.parquet, column k: holds string, but int64 in .*0.parquet"):
        SideTable(side({"k": [1], "v": [1]}, {"k": ["a"], "v": [2]}, name="types"))
    double = pa.table([pa.array([1]), pa.array([2]), pa.array([3])], names=["k", "v", "v"])
    with pytest.raises(DataError, match=r"file .*0.parquet, column v: is there 2 times; give each column a name"):
        SideTable(side(double, name="double"))
    assert SideTable(side(double, name="double", columns=[])).columns == ()
    with pytest.raises(DataError, match=r"column nope: is missing; the side table has: k, v"):
        SideTable(side({"k": [1], "v": [1]}, columns=["nope"], name="nope"))


VALUES: Mapping[str, pa.Array] = {
    "views": pa.array(["a", None], pa.string_view()),
    "category": pa.array(["a", None]).dictionary_encode(),
    "numbers in a dictionary": pa.array([7, None]).dictionary_encode(),
    "lists of views": pa.array([["a", "b"], None], pa.list_(pa.string_view())),
    "structs": pa.array([{"a": 1}, None]),
    "maps": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64())),
    "nulls": pa.nulls(2),
    "vectors": pa.array([[1.0, 2.0], None], pa.list_(pa.float32(), 2)),
    "decimals": pa.array([Decimal(3), None], pa.decimal128(20, 0)),
    "half": pa.array([1.5, None], pa.float16()),
}


@pytest.mark.parametrize("kind", VALUES)
def test_columns_of_many_types_are_looked_up(side: Callable[..., Join], kind: str) -> None:
    values = VALUES[kind]
    join = side({"k": [1, 2], "v": values}, on_missing="null")
    assert looked_up(join, pa.array([2, 1, 9, 1])) == [None, values[0].as_py(), None, values[0].as_py()]


def test_a_column_that_cannot_be_looked_up_is_refused_unless_it_is_left_out(side: Callable[..., Join]) -> None:
    views = pa.array([{"a": "x"}], pa.struct([("a", pa.string_view())]))
    with pytest.raises(DataError, match=r"column v: holds struct<a: string_view>, which cannot be looked up; name the"):
        SideTable(side({"k": [1], "v": views}))
    assert looked_up(side({"k": [1], "v": views, "w": ["a"]}, columns=["w"]), pa.array([1]), "w") == ["a"]


def test_the_partition_of_a_side_table_is_a_column_of_it(tmp_path: Path) -> None:
    for number in range(2):
        folder = tmp_path / "side" / f"region=r{number}"
        folder.mkdir(parents=True)
        pq.write_table(pa.table({"k": [number, number + 10]}), folder / "0.parquet")
    join = Join(path=str(tmp_path / "side"), key="k")
    assert looked_up(join, pa.array([10, 1]), "region") == ["r0", "r1"]

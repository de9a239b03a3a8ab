"""Which files a path means: links, globs, folders that give columns, and folders that a table format manages."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embtables.errors import BadFileError, ConfigError, DataError
from embtables.pipelines.sources.files.listing import list_files
from embtables.pipelines.sources.files.partitions import check_declared
from embtables.pipelines.sources.files.source import Source, open_source
from embtables.schema import LogConfig


def write(path: Path, rows: int = 2, **columns: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"x": list(range(rows)), **columns}), path)


def opened(path: Path | str, **options: object) -> Source:
    return open_source(str(path), "**/*.parquet", quarantine=False, **options)  # type: ignore[arg-type]


def names(path: Path, below: Path) -> list[str]:
    return [str(Path(p).relative_to(below)) for p in list_files(str(path), "**/*.parquet").paths]


def test_links_are_followed_but_not_round_and_round(tmp_path: Path) -> None:
    log, other = tmp_path / "log", tmp_path / "other"
    write(log / "day=1" / "a.parquet")
    write(other / "b.parquet")
    (log / "day=2").symlink_to(other)
    (log / "day=1" / "up").symlink_to(log)
    (log / "self").symlink_to(log / "self")
    assert names(log, log) == ["day=1/a.parquet", "day=2/b.parquet"]


@pytest.mark.parametrize(
    ("glob", "found"),
    [
        ("dt={0,1}/*.parquet", ["dt=0/a.parquet", "dt=1/a.parquet"]),
        ("dt=[1-2]/*.parquet", ["dt=1/a.parquet", "dt=2/a.parquet"]),
        ("dt=[!0]/?.parquet", ["dt=1/a.parquet", "dt=2/a.parquet"]),
        ("dt={0,{1,9}}/a.{parquet,pq}", ["dt=0/a.parquet", "dt=1/a.parquet"]),
        ("**/a.parquet", ["dt=0/a.parquet", "dt=1/a.parquet", "dt=2/a.parquet"]),
    ],
)
def test_globs(tmp_path: Path, glob: str, found: list[str]) -> None:
    log = tmp_path / "logs [v2] {a,b}"  # what exists under its name is no glob
    for number in range(3):
        write(log / f"dt={number}" / "a.parquet")
    assert names(log / glob, log) == found


@pytest.mark.parametrize(("glob", "message"), [("a[b", "does not close it"), ("a{b,c", "does not close it")])
def test_a_glob_that_is_not_closed_is_refused(tmp_path: Path, glob: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        list_files(str(tmp_path / glob), "**/*.parquet")


def test_what_folders_say_is_text_unless_a_type_is_declared(tmp_path: Path) -> None:
    for value in ("01", "1", "1000000000000000000", "no", "__HIVE_DEFAULT_PARTITION__"):
        write(tmp_path / f"sh%20op={value}" / "a.parquet", rows=1)
    source = opened(tmp_path)
    assert source.column_type("sh op") == pa.dictionary(pa.int32(), pa.large_string())
    assert source.read_all(["sh op"]).column(0).to_pylist() == ["01", "1", "1000000000000000000", None, "no"]
    with pytest.raises(DataError, match=r"sh%20op=no/a\.parquet, column sh op: the folder's value is 'no'"):
        opened(tmp_path, partitions={"sh op": "int64"}).read_all(["sh op"])


def test_declared_types_of_folders(tmp_path: Path) -> None:
    write(tmp_path / "n=007" / "f=1.5" / "b=false" / "d=2024-01-31" / "t=2024-01-31 12%3A00" / "a.parquet", rows=1)
    types = {"n": "int64", "f": "float64", "b": "bool", "d": "date", "t": "timestamp"}
    row = opened(tmp_path, partitions=types).read_all(list(types)).to_pylist()[0]
    assert (row["n"], row["f"], row["b"], row["d"], row["t"].hour) == (7, 1.5, False, date(2024, 1, 31), 12)
    with pytest.raises(ConfigError, match=r"data\.partitions names 'm', .*; they give: n"):
        check_declared(LogConfig(path="x", partitions={"m": "int64"}), {"n"})


def test_a_column_that_some_files_lack_is_null_on_request(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet")
    write(tmp_path / "b.parquet", new=[5, 6])
    with pytest.raises(DataError, match=r"a\.parquet, column new: is missing; .* set data\.on_missing_column: null"):
        opened(tmp_path).column_type("new")
    assert opened(tmp_path, missing_is_null=True).read_all(["new"]).column(0).to_pylist() == [None, None, 5, 6]
    with pytest.raises(DataError, match="column neither: is missing"):
        opened(tmp_path, missing_is_null=True).column_type("neither")


def test_a_name_that_two_columns_have_is_refused_where_it_is_read(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2]), pa.array([3])], names=["x", "x", "y"])
    pq.write_table(table, tmp_path / "a.parquet")
    assert opened(tmp_path).read_all(["y"]).column(0).to_pylist() == [3]
    with pytest.raises(DataError, match=r"a\.parquet, column x: is there 2 times"):
        opened(tmp_path).column_type("x")


def test_a_delta_table_is_read_by_its_log(tmp_path: Path) -> None:
    table = tmp_path / "table"
    rows = pa.table({"u": [1, 2, 3], "day": [date(2024, 1, 1), date(2024, 1, 2), None], "c": ["a b", "é/=", None]})
    deltalake.write_deltalake(str(table), rows, partition_by=["day", "c"])
    deltalake.write_deltalake(str(table), rows.slice(0, 1), mode="append")
    deltalake.DeltaTable(str(table)).delete("u = 2")
    found = opened(table).read_all(["u", "day", "c"]).to_pylist()
    assert sorted(found, key=str) == sorted([rows.to_pylist()[i] for i in (0, 0, 2)], key=str)
    with pytest.raises(DataError, match="is a Delta table below"):
        opened(tmp_path)
    deltalake.write_deltalake(str(table), rows, mode="overwrite", partition_by=["day", "c"])
    assert len(opened(table).read_all(["u"])) == 3


def test_tables_that_cannot_be_read_are_refused_in_one_sentence(tmp_path: Path) -> None:
    delta, iceberg, hudi = tmp_path / "delta", tmp_path / "iceberg", tmp_path / "hudi"
    configuration = {"delta.enableDeletionVectors": "true"}
    deltalake.DeltaTable.create(str(delta), pa.schema([("x", pa.int64())]), configuration=configuration)
    with pytest.raises(DataError, match=r"a Delta table (with deletion vectors|that cannot be read)"):
        opened(delta)
    write(iceberg / "data" / "a.parquet")
    (iceberg / "metadata").mkdir()
    (iceberg / "metadata" / "v1.metadata.json").write_text("{}")
    with pytest.raises(DataError, match="is an Iceberg table"):
        opened(iceberg)
    write(hudi / "a.parquet")
    (hudi / ".hoodie").mkdir()
    with pytest.raises(DataError, match="is a Hudi table"):
        opened(hudi)
    broken = tmp_path / "broken"
    write(broken / "a.parquet")
    (broken / "_delta_log").mkdir()
    (broken / "_delta_log" / f"{0:020d}.json").write_text(json.dumps({"add": {"path": "a.parquet"}}))
    with pytest.raises(DataError, match="is a Delta table that cannot be read"):
        opened(broken)


def test_a_footer_that_promises_more_rows_than_the_pages_hold_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write(path, rows=5)
    source = opened(tmp_path)
    write(path, rows=3)  # the footer that was read is another file's
    with pytest.raises(BadFileError, match="cannot be read as parquet"):
        source.read_all(["x"])

"""Where a log lies: hive folders, paths, globs, files that are none, tables of other formats."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.cases.case import Case, Cases
from tests.cases.log import Folder, clicks, config

CASES = Cases()
HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


def folders(log: Folder, name: str, *values: object, rows: int = 200) -> None:
    """A file in a folder `name=value` for each value."""
    for value in values:
        log.write(f"{name}={value}/a.parquet", clicks(rows))


@CASES.trains(600, ids=2)
def null_beside_integers(log: Folder) -> str:
    folders(log, "ad", 1, 2, HIVE_NULL)
    return config("ad")


@CASES.trains(600, ids=2)
def null_beside_strings(log: Folder) -> str:
    folders(log, "c", "us", "de", HIVE_NULL)
    return config("c")


@CASES.trains(600, ids=3)
def null_with_a_null_id(log: Folder) -> str:
    folders(log, "c", "us", "de", HIVE_NULL)
    return config("{name: c, table: t, null_id: none}")


@CASES.trains(600, ids=3)
def values_of_which_some_look_like_integers(log: Folder) -> str:
    folders(log, "slot", 1, 2, "other")
    return config("slot")


@CASES.trains(600, ids=3)
def values_with_leading_zeros(log: Folder) -> str:
    folders(log, "shop", "01", "1", "001")
    return config("shop")


@CASES.trains(300, ids=3)
def values_of_18_and_19_digits(log: Folder) -> str:
    folders(log, "ad", 10**17, 10**18, 2**63, rows=100)
    return config("ad")


@CASES.trains(600, ids=2)
def values_declared_as_integers(log: Folder) -> str:
    folders(log, "shop", "01", "1", "2")
    return config("shop", data="partitions: {shop: int64}")


@CASES.refused("shop=x", "column shop", "int64", during=True)
def value_that_is_not_of_the_declared_type(log: Folder) -> str:
    folders(log, "shop", "x")
    return config("shop", data="partitions: {shop: int64}")


@CASES.trains(400, evaluated=200)
def dates_as_the_event_time(log: Folder) -> str:
    folders(log, "dt", "2024-01-01", "2024-01-02", "2024-01-03")
    return config(event_time="{column: dt}", data="split: {kind: time, test_from: 2024-01-03}")


@CASES.trains(200, ids=40)
def label_in_the_folders_name(log: Folder) -> str:
    for value in (0, 1):
        log.write(f"clicked={value}/a.parquet", {"u": clicks(100)["u"]})
    return config(labels="[{column: clicked}]")


@CASES.trains(600, ids=6)
def escapes_spaces_and_equal_signs(log: Folder) -> str:
    folders(log, "c", "a%2Fb", "x y", "é", "k=v", "", "100%25", rows=100)
    return config("c")


@CASES.trains(200, ids=2)
def percent_encoded_name(log: Folder) -> str:
    folders(log, "sp%20ace", "a", "b", rows=100)
    return config("sp ace")


@CASES.trains(300, ids=3)
def column_in_the_file_and_in_the_folder(log: Folder) -> str:
    """The folder's value counts, as for every other reader of hive folders."""
    folders(log, "u", 0, 1, 2, rows=100)
    return config()


@CASES.refused("b.parquet", "column c", "is missing")
def file_above_the_folders(log: Folder) -> str:
    folders(log, "c", 1, rows=100)
    log.write("b.parquet", clicks(100))
    return config("c")


@CASES.trains(50, ids=40)
def folders_that_start_with_an_underscore(log: Folder) -> str:
    """They are skipped, as docs/reader.md says."""
    folders(log, "_day", 0, 1, 2, rows=100)
    log.write("a.parquet", clicks(50))
    return config()


@CASES.trains(600, ids=40)
def markers_and_hidden_files(log: Folder) -> str:
    columns = clicks(300)
    log.write("a.parquet", columns)
    found: list[pq.FileMetaData] = []
    log.write("b.parquet", columns, metadata_collector=found)
    pq.write_metadata(pa.table(columns).schema, log.path("log/_common_metadata"))
    found[0].set_file_path("b.parquet")
    found[0].write_metadata_file(log.path("log/_metadata"))
    for name in ("_SUCCESS", ".a.parquet.crc", ".hidden.parquet", "part.parquet.tmp", "_SUCCESS.parquet"):
        log.path(f"log/{name}").touch()
    for name in ("_temporary/0", ".ipynb_checkpoints", "_delta_index"):
        log.write(f"{name}/x.parquet", clicks(1000))
    return config()


@CASES.trains(300, ids=40)
def folder_that_links_to_its_parent(log: Folder) -> str:
    log.write("a.parquet", clicks(300))
    log.path("log/self").symlink_to("../log")
    return config()


@CASES.trains(300, ids=40)
def brackets_in_the_path(log: Folder) -> str:
    log.write("/proj [v2]/log/a.parquet", clicks(300))
    return config(path="proj [v2]/log")


@CASES.trains(300, ids=40)
def spaces_percent_and_plus_in_the_path(log: Folder) -> str:
    log.write("a b%20c+#ü/a.parquet", clicks(300))
    return config(path="log/a b%20c+#ü")


@CASES.trains(200, ids=40)
def glob_with_braces(log: Folder) -> str:
    folders(log, "dt", 0, 1, 2, 3, rows=100)
    return config(path="log/dt={0,1}/*.parquet")


@CASES.trains(300, ids=40)
def glob_with_a_class(log: Folder) -> str:
    folders(log, "dt", 0, 1, 2, 3, rows=100)
    return config(path="log/dt=[0-2]/*.parquet")


@CASES.trains(300)
def delta_table_with_a_removed_file(log: Folder) -> str:
    log.write("part-0.parquet", clicks(300))
    log.write("part-1.parquet", clicks(300, seed=2))
    schema = {"type": "struct", "fields": []}
    made = {"id": "t", "format": {"provider": "parquet", "options": {}}, "partitionColumns": [], "configuration": {}}
    fields = [("u", "long"), ("x", "double"), ("y", "long")]
    schema["fields"] = [{"name": n, "type": k, "nullable": True, "metadata": {}} for n, k in fields]

    def added(name: str) -> dict[str, object]:
        size = log.path(f"log/{name}").stat().st_size
        return {"path": name, "partitionValues": {}, "size": size, "modificationTime": 0, "dataChange": True}

    versions = [
        [
            {"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}},
            {"metaData": {**made, "schemaString": json.dumps(schema)}},
            {"add": added("part-0.parquet")},
        ],
        [
            {"remove": {"path": "part-0.parquet", "deletionTimestamp": 0, "dataChange": True}},
            {"add": added("part-1.parquet")},
        ],
    ]
    for number, actions in enumerate(versions):
        text = "".join(json.dumps(action) + "\n" for action in actions)
        log.path(f"log/_delta_log/{number:020}.json").write_text(text)
    return config()


@CASES.refused("Iceberg")
def iceberg_table(log: Folder) -> str:
    log.write("data/a.parquet", clicks(300))
    log.path("log/metadata/v1.metadata.json").write_text(json.dumps({"format-version": 2, "table-uuid": "0"}))
    return config()


@CASES.refused("b.parquet", "cannot be read as parquet")
def text_named_parquet(log: Folder) -> str:
    log.write("a.parquet", clicks(300))
    log.path("log/b.parquet").write_text("u,x,y\n1,2,0\n" * 50)
    return config()


@CASES.refused("b.parquet", "cannot be read as parquet")
def truncated_file(log: Folder) -> str:
    log.write("a.parquet", clicks(300))
    path = log.write("b.parquet", clicks(3000))
    path.write_bytes(path.read_bytes()[:-200])
    return config()


@CASES.refused("b.parquet")
def file_of_zero_bytes(log: Folder) -> str:
    log.write("a.parquet", clicks(300))
    log.path("log/b.parquet").touch()
    return config()


@CASES.refused("no rows")
def log_of_zero_rows(log: Folder) -> str:
    log.write("a.parquet", pa.table(clicks(300)).slice(0, 0))
    return config(dense="[{column: x}]")


@CASES.trains(1, ids=1)
def log_of_one_row(log: Folder) -> str:
    log.write("a.parquet", pa.table(clicks(10)).slice(0, 1))
    return config(dense="[{column: x, transforms: [standardise]}]")


@CASES.refused("a.parquet", "10,000,001", "row group")
def row_group_that_is_too_large(log: Folder) -> str:
    rows = 10_000_001
    columns = {"u": pa.array(np.zeros(rows, np.int8)), "y": pa.array(np.arange(rows) % 2 == 0)}
    log.write("a.parquet", columns, row_group_size=rows)
    return config()


@CASES.trains(10_000, ids=20)
def five_hundred_small_files(log: Folder) -> str:
    for number in range(500):
        log.write(f"dt=2024-01-{number % 30 + 1:02}/part-{number:05}.parquet", clicks(20, seed=number))
    return config(data="shuffle: {seed: 1, buffer_rows: 5000}")


@pytest.mark.parametrize("case", CASES)
def test_folders(case: Case, tmp_path: Path) -> None:
    case.check(tmp_path)

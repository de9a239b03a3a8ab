"""Bad data: each fault is refused with file, column and row, or set aside, counted and listed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embtables.errors import BadFileError, ConfigError, DataError
from embtables.inputs.features import FittedTransforms
from embtables.pipelines.config import RunConfig
from embtables.pipelines.sources.parquet import ParquetReader
from tests.pipelines.conftest import open_log

Make = Callable[..., RunConfig]
FITTED = FittedTransforms({"price": (0.0, 1.0)})


def rows(config: RunConfig, **options: Any) -> list[int]:
    reader = ParquetReader(open_log(config), None, batch_size=128, fitted=FITTED, extra_columns=("row",), **options)
    return [row for item in reader if item.extra is not None for row in item.extra.column("row").to_pylist()]


def change(path: Path, column: str, values: pa.Array | pa.ChunkedArray | None) -> None:
    table = pq.read_table(path)
    at = table.schema.get_field_index(column)
    table = table.remove_column(at) if values is None else table.set_column(at, column, values)
    pq.write_table(table, path, row_group_size=150)


def with_value(path: Path, column: str, row: int, value: Any, kind: pa.DataType | None = None) -> None:
    old = pq.read_table(path).column(column)
    values = old.to_pylist()
    values[row] = value
    change(path, column, pa.array(values, kind or old.type))


@pytest.mark.parametrize(
    ("column", "row", "value", "message"),
    [
        ("label", 170, 2, "holds the label 2; labels are 0 or 1"),
        ("label", 3, None, "is null"),
        ("price", 451, float("nan"), "holds nan, a finite number is needed"),
        ("price", 0, float("-inf"), "holds -inf"),
        ("price", 9, -2.0, "log1p needs values above -1"),
        ("price", 5, None, "is null"),
        ("time", 12, None, "every row needs an event time"),
    ],
)
def test_a_bad_value_is_named_or_set_aside(
    make_config: Make, log_dir: Path, tmp_path: Path, column: str, row: int, value: Any, message: str
) -> None:
    path = log_dir / "part-1.parquet"
    with_value(path, column, row, value)
    for changes in ({}, {"data.shuffle": None}):
        with pytest.raises(DataError) as raised:
            rows(make_config(**changes), seed=1)
        assert message in str(raised.value)
        assert raised.value.path == {"file": str(path), "column": column, "row": row}
    config = make_config(**{"data.on_bad_row": "quarantine"})
    kept = rows(config, seed=1, quarantine_dir=tmp_path / "aside")
    assert sorted(kept) == [r for r in range(1800) if r != 600 + row]
    (line,) = (tmp_path / "aside" / "rows.jsonl").read_text().splitlines()
    listed = json.loads(line)
    assert (listed["file"], listed["row"], listed["column"]) == (str(path), row, column)


def test_rows_set_aside_are_counted_by_cause_and_positions_stay_exact(make_config: Make, log_dir: Path) -> None:
    for row in (10, 20, 30):
        with_value(log_dir / "part-0.parquet", "price", row, float("nan"))
    with_value(log_dir / "part-2.parquet", "label", 7, 9)
    config = make_config(**{"data.on_bad_row": "quarantine"})
    reader = ParquetReader(open_log(config), None, batch_size=50, fitted=FITTED, seed=2, extra_columns=("row",))
    items = list(reader)
    assert sum(reader.quarantine.counts.values()) == 4
    assert sorted(reader.quarantine.counts.values()) == [1, 3]
    for number in (1, 7, 20):
        rest = rows(config, seed=2, position=items[number - 1].position)
        assert rest == [r for i in items[number:] for r in i.extra.column("row").to_pylist()]


@pytest.mark.parametrize("ranks", [2, 3])
def test_of_several_ranks_each_sets_aside_its_own_rows(
    make_config: Make, log_dir: Path, tmp_path: Path, ranks: int
) -> None:
    for row in (10, 20, 30, 149, 599):
        with_value(log_dir / "part-0.parquet", "price", row, float("nan"))
    for row in range(0, 600, 7):
        with_value(log_dir / "part-2.parquet", "label", row, 9)
    config = make_config(**{"data.on_bad_row": "quarantine"})
    options: dict[str, Any] = {"batch_size": 64, "fitted": FITTED, "seed": 2, "extra_columns": ("row",)}

    def read(**more: Any) -> tuple[ParquetReader, list[list[int]]]:
        reader = ParquetReader(open_log(config), None, **options, **more)
        return reader, [item.extra.column("row").to_pylist() for item in reader if item.extra is not None]

    one, whole = read(quarantine_dir=tmp_path / "one")
    found = [read(rank=r, world_size=ranks, quarantine_dir=tmp_path / "all") for r in range(ranks)]
    for number, batch in enumerate(whole):
        assert [row for _, parts in found for row in parts[number]] == batch
    counts = sum((reader.quarantine.counts for reader, _ in found), Counter[str]())
    assert counts == one.quarantine.counts
    assert sum(counts.values()) == 5 + 86
    listed = sorted(line for path in (tmp_path / "all").iterdir() for line in path.read_text().splitlines())
    assert listed == sorted((tmp_path / "one" / "rows.jsonl").read_text().splitlines())
    # What was set aside before a position is not counted again after it.
    items = list(ParquetReader(open_log(config), None, **options))
    rest, _ = read(position=items[8].position)
    before = ParquetReader(open_log(config), None, **options)
    with closing(iter(before)) as taken:
        for _ in range(9):
            next(taken)
    assert before.quarantine.counts + rest.quarantine.counts == one.quarantine.counts


def test_a_missing_column_names_the_file(make_config: Make, log_dir: Path) -> None:
    change(log_dir / "part-2.parquet", "price", None)
    with pytest.raises(DataError, match=r"part-2.parquet, column price: is missing; the file has: row, user"):
        rows(make_config())


def test_a_column_that_changes_type_between_files_names_both(make_config: Make, log_dir: Path) -> None:
    change(log_dir / "part-1.parquet", "user", pa.array(["u"] * 600))
    with pytest.raises(DataError, match=r"part-1.parquet, column user: holds string, but int64 in .*part-0.parquet"):
        rows(make_config())


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("user", pa.array([0.5] * 600), "cannot be ids; cast it to an integer"),
        ("price", pa.array(["cheap"] * 600), "a number is needed"),
        ("label", pa.array(["yes"] * 600), "a number is needed"),
        ("time", pa.array(["noon"] * 600), "event times are timestamps, dates or integers"),
        ("time", pa.array(range(600)), "give their unit"),
    ],
)
def test_a_wrong_type_is_refused(make_config: Make, log_dir: Path, column: str, values: pa.Array, message: str) -> None:
    for number in range(3):
        change(log_dir / f"part-{number}.parquet", column, values)
    with pytest.raises(DataError, match=message) as raised:
        rows(make_config(**{"data.split": None}))
    assert raised.value.path["column"] == column


def test_an_empty_or_missing_folder(make_config: Make, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no log here")
    with pytest.raises(DataError, match=r"empty: holds no file that matches '\*\*/\*.parquet'"):
        open_log(make_config(**{"data.path": str(tmp_path / "empty")}))
    with pytest.raises(DataError, match="nowhere: does not exist"):
        open_log(make_config(**{"data.path": str(tmp_path / "nowhere")}))
    with pytest.raises(DataError, match="is not a URI that can be opened"):
        open_log(make_config(**{"data.path": "nonsense://x/y"}))


def damage(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "truncated":
        data = data[: len(data) // 2]
    elif how == "footer":
        data[-20] ^= 0xFF
    elif how == "pages":
        data[4:2000] = b"\xff" * 1996
    else:
        data = bytearray(b"this is no parquet file")
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("how", ["truncated", "footer", "pages", "text"])
def test_a_damaged_file_is_named_or_set_aside(make_config: Make, log_dir: Path, how: str) -> None:
    damage(log_dir / "part-1.parquet", how)
    with pytest.raises(BadFileError, match=r"part-1.parquet: cannot be read as parquet"):
        rows(make_config())
    config = make_config(**{"data.on_bad_file": "quarantine"})
    log = open_log(config)
    reader = ParquetReader(log, None, batch_size=128, fitted=FITTED, extra_columns=("row",))
    kept = [row for item in reader if item.extra is not None for row in item.extra.column("row").to_pylist()]
    assert kept == [*range(600), *range(1200, 1800)]
    assert list(log.bad_files) == [str(log_dir / "part-1.parquet")]


def test_a_flipped_byte_in_a_checksummed_file_is_found(make_config: Make, log_dir: Path) -> None:
    path = log_dir / "part-1.parquet"
    pq.write_table(pq.read_table(path), path, write_page_checksum=True, compression="none", use_dictionary=False)
    data = bytearray(path.read_bytes())
    data[1500] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(BadFileError, match="part-1"):
        rows(make_config())


def test_a_list_of_a_million_ids_is_refused_or_cut(make_config: Make, log_dir: Path) -> None:
    path = log_dir / "part-0.parquet"
    with_value(path, "tags", 4, list(range(1_000_000)))
    reader = ParquetReader(open_log(make_config()), None, batch_size=10, fitted=FITTED)
    assert next(iter(reader)).batch.ids["tags"].rows()[4].tolist() == [999_997, 999_998, 999_999]
    with pytest.raises(DataError, match=r"a list of 1,000,000 ids, more than 65,536; set max_length") as raised:
        rows(make_config(**{"features.2.max_length": None}))
    assert raised.value.path["row"] == 4


def test_a_row_group_that_would_fill_the_memory_is_refused_by_its_footer(make_config: Make, log_dir: Path) -> None:
    path = log_dir / "part-1.parquet"
    zeros = pa.table({"label": pa.array(np.zeros(10_000_001, np.int8))})
    pq.write_table(zeros, path, row_group_size=20_000_000, compression="zstd")
    assert path.stat().st_size < 100_000
    with pytest.raises(BadFileError, match=r"part-1.parquet: has a row group of 10,000,001 rows"):
        open_log(make_config())


def test_extreme_ids_pass_unchanged(make_config: Make, log_dir: Path) -> None:
    extremes = [-1, -(2**63), 2**63 - 1, 0]
    change(log_dir / "part-0.parquet", "user", pa.array(extremes * 150))
    reader = ParquetReader(open_log(make_config()), None, batch_size=600, fitted=FITTED)
    batch = next(iter(reader)).batch
    assert batch.ids["user"].values.tolist() == extremes * 150
    change(log_dir / "part-0.parquet", "user", pa.array(np.full(600, 2**64 - 1, np.uint64)))
    reader = ParquetReader(open_log(make_config()), None, batch_size=600, fitted=FITTED)
    assert next(iter(reader)).batch.ids["user"].values[0] == -1


@pytest.mark.parametrize("encoded", [False, True])
def test_invalid_utf8_names_the_row(make_config: Make, log_dir: Path, encoded: bool) -> None:
    values = [b"ok", b"fine", b"\xff\xfe", "schön".encode()] * 150
    bad = pa.Array.from_buffers(pa.string(), 600, pa.array(values, pa.binary()).buffers())
    change(log_dir / "part-0.parquet", "item", bad.dictionary_encode() if encoded else bad)
    with pytest.raises(DataError, match=r"column item, row 2: holds bytes that are not UTF-8 \(75 such rows"):
        rows(make_config())
    assert len(rows(make_config(**{"data.on_bad_row": "quarantine"}))) == 1650


def test_weights_must_match_their_ids(make_config: Make, log_dir: Path) -> None:
    config = make_config(**{"features.2.weights_column": "w"})
    for number in range(3):
        path = log_dir / f"part-{number}.parquet"
        table = pq.read_table(path)
        weights = [[0.5] * len(tags) for tags in table.column("tags").to_pylist()]
        if number == 1:
            weights[33] = [0.5] * 7
        pq.write_table(table.append_column("w", pa.array(weights, pa.list_(pa.float32()))), path)
    with pytest.raises(DataError, match=r"part-1.parquet, column w, row 33: has 7 weights for"):
        rows(config)


def test_a_condition_that_fits_no_column_type(make_config: Make) -> None:
    with pytest.raises(ConfigError, match="'many' cannot be compared with int64"):
        rows(make_config(**{"data.where": ["user > many"]}))
    with pytest.raises(DataError, match="column colour: is missing"):
        rows(make_config(**{"data.where": ["colour == red"]}))

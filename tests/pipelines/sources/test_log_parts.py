"""Parts of a log: files of their own, and rows for which no part can be found."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import embtables
from embtables.errors import ConfigError, DataError
from embtables.pipelines.config import RunConfig, load_config
from embtables.pipelines.prepare.log_splits import has_part
from embtables.pipelines.sources.log import Log
from embtables.pipelines.sources.parquet import LogPart, ParquetReader
from embtables.schema import to_yaml

Make = Callable[..., RunConfig]
PARTS: tuple[LogPart, ...] = ("train", "validation", "test")


def rows_of(config: RunConfig, part: LogPart | None) -> list[int]:
    log = Log(config, config.data)
    reader = ParquetReader(log, part, batch_size=100, fitted=log.fit_transforms(0), extra_columns=["row"])
    return [row for item in reader if item.extra is not None for row in item.extra.column("row").to_pylist()]


def apart(make_config: Make, log_dir: Path, **paths: str) -> RunConfig:
    data = {"data.path": None, "data.split": None, "data.parts": {p: str(log_dir / f) for p, f in paths.items()}}
    return make_config(**data)


def test_each_part_is_its_own_files(make_config: Make, log_dir: Path) -> None:
    config = apart(make_config, log_dir, train="part-[01].parquet", test="part-2.parquet")
    assert sorted(rows_of(config, "train")) == list(range(1200))
    assert rows_of(config, "test") == list(range(1200, 1800))
    assert rows_of(config, "validation") == []
    assert sorted(rows_of(config, None)) == list(range(1800))
    assert [has_part(config, part) for part in PARTS] == [True, False, True]


def test_a_run_over_parts_is_trained_evaluated_and_gone_on_with(make_config: Make, log_dir: Path) -> None:
    config = apart(make_config, log_dir, train="part-0.parquet", validation="part-1.parquet", test="part-2.parquet")
    report = embtables.train(config, shown=False).report()
    assert (report["rows"], report["evaluated_rows"], report["part"]) == (1200, 600, "test")
    more = embtables.resume(report["run_dir"], overrides=["train.epochs=3"], shown=False).report()
    assert more["rows"] == 1800
    other = embtables.evaluate(report["run_dir"], overrides=[f"data.parts.test={log_dir / 'part-1.parquet'}"])
    assert other["rows"] == 600


def test_paths_of_parts_and_joins_are_relative_to_the_configuration(make_config: Make, log_dir: Path) -> None:
    pq.write_table(pa.table({"user": list(range(40)), "age": list(range(40))}), log_dir.parent / "users.parquet")
    changed = apart(make_config, log_dir, train="part-0.parquet").model_dump(mode="json")
    changed["data"]["parts"] = {"train": "log/part-0.parquet"}
    changed["data"]["join"] = [{"path": "users.parquet", "key": "user"}]
    config = RunConfig.model_validate(changed)
    (log_dir.parent / "my.yaml").write_text(to_yaml(config))
    loaded = load_config(log_dir.parent / "my.yaml")
    assert loaded.data.parts is not None
    assert loaded.data.parts.train == str(log_dir / "part-0.parquet")
    assert loaded.data.join[0].path == str(log_dir.parent / "users.parquet")
    assert len(rows_of(loaded, "train")) == 600


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"data.parts": {"train": "a"}}, "give 'path', the log's folder, or 'parts'"),
        ({"data.path": None}, "give 'path', the log's folder, or 'parts'"),
        ({"data.path": None, "data.parts": {"train": "a"}}, "'split' does not go with 'parts'"),
        ({"data.path": None, "data.split": None, "data.parts": {"test": "a"}}, "train"),
    ],
)
def test_what_does_not_go_together_is_refused(make_config: Make, data: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_config(**data)


@pytest.mark.parametrize(
    ("split", "column", "bad", "reason"),
    [
        ({"kind": "time", "test_from": "1970-01-01T10:00:00"}, "time", None, "is null; every row needs an event time"),
        ({"kind": "hash", "columns": ["item"]}, "item", b"\xff", "holds bytes that are not UTF-8"),
    ],
)
def test_rows_of_no_part_are_set_aside_once(
    make_config: Make, log_dir: Path, split: dict[str, object], column: str, bad: bytes | None, reason: str
) -> None:
    path = log_dir / "part-1.parquet"
    table = pq.read_table(path)
    values = table.column(column).to_pylist()
    if bad is None:
        changed = pa.array([None if n in (3, 5) else v for n, v in enumerate(values)], table.schema.field(column).type)
    else:
        encoded = [bad if n in (3, 5) else str(v).encode() for n, v in enumerate(values)]
        changed = pa.array(encoded, pa.binary()).view(pa.string())
    pq.write_table(table.set_column(table.schema.get_field_index(column), column, changed), path, row_group_size=150)
    event_time = {"column": "time"}
    with pytest.raises(DataError, match=rf"part-1\.parquet, column {column}, row 3: {reason}"):
        rows_of(make_config(event_time=event_time, **{"data.split": split}), "test")
    config = make_config(**{"data.split": split, "data.on_bad_row": "quarantine", "train.epochs": 1})
    parts = [rows_of(config, part) for part in PARTS]
    assert sorted(row for rows in parts for row in rows) == [n for n in range(1800) if n not in (603, 605)]
    report = embtables.train(config, shown=False).report()
    assert report["quarantined_rows"] == 2
    listed = [json.loads(line) for line in (Path(report["run_dir"]) / "quarantine" / "rows.jsonl").open()]
    assert sorted(entry["row"] for entry in listed) == [3, 5]


def test_bad_rows_of_an_evaluated_part_are_counted_and_listed(make_config: Make, log_dir: Path) -> None:
    path = log_dir / "part-2.parquet"
    table = pq.read_table(path)
    prices = [float("nan") if n < 7 else v for n, v in enumerate(table.column("price").to_pylist())]
    pq.write_table(table.set_column(table.schema.get_field_index("price"), "price", pa.array(prices)), path)
    parts = {"train": "part-0.parquet", "test": "part-2.parquet"}
    config = apart(make_config, log_dir, **parts)
    config = config.model_copy(update={"data": config.data.model_copy(update={"on_bad_row": "quarantine"})})
    report = embtables.train(config, shown=False).report()
    assert (report["evaluated_rows"], report["quarantined_rows"]) == (593, 7)
    listed = (Path(report["run_dir"]) / "quarantine" / "test" / "rows.jsonl").read_text().splitlines()
    assert [json.loads(line)["row"] for line in listed] == list(range(7))


def test_a_part_that_is_bad_as_a_whole_is_an_error(make_config: Make, log_dir: Path) -> None:
    for path in log_dir.glob("*.parquet"):
        table = pq.read_table(path)
        bad = pa.array([float("inf")] * table.num_rows)
        pq.write_table(table.set_column(table.schema.get_field_index("price"), "price", bad), path)
    config = make_config(dense=[{"column": "price"}], **{"data.on_bad_row": "quarantine"})
    with pytest.raises(DataError, match=r"no row of the train part is left: all 1,\d+ are bad and were set aside"):
        embtables.train(config, shown=False).report()

"""The reader: every row once, whatever the ranks; seeded orders; exact resumption; joins, filters, splits."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embtables.errors import DataError
from embtables.features import FittedTransforms
from embtables.ids.strings import hash_strings
from pipelines.config import RunConfig
from pipelines.parquet import Log, ParquetReader, Part, Position
from pipelines.reader.deal import Dealer

Make = Callable[..., RunConfig]
FITTED = FittedTransforms({"price": (0.0, 1.0)})


def read(log: Log, part: Part | None = None, **options: Any) -> list[list[int]]:
    """Row numbers of each batch."""
    options = {"batch_size": 64, "fitted": FITTED, **options}
    reader = ParquetReader(log, part, extra_columns=("row",), **options)
    return [[] if item.extra is None else item.extra.column("row").to_pylist() for item in reader]


def flat(batches: list[list[int]]) -> list[int]:
    return [row for batch in batches for row in batch]


def test_rows_come_in_path_order_and_batches_are_full(make_config: Make) -> None:
    batches = read(Log(make_config()))
    assert flat(batches) == list(range(1800))
    assert {len(b) for b in batches[:-1]} == {64}


def test_values_are_those_of_the_files(make_config: Make, log_dir: Path) -> None:
    table = pa.concat_tables([pq.read_table(p) for p in sorted(log_dir.iterdir())])
    reader = ParquetReader(Log(make_config()), None, batch_size=256, fitted=FITTED, seed=3, extra_columns=("row",))
    for item in reader:
        assert item.extra is not None
        rows = table.take(item.extra.column("row").combine_chunks())
        batch = item.batch
        assert batch.ids["user"].values().tolist() == rows.column("user").to_pylist()
        assert batch.ids["item"].values().tolist() == hash_strings(rows.column("item")).tolist()
        kept = [tags[-3:] for tags in rows.column("tags").to_pylist()]
        assert [t.tolist() for t in batch.ids["tags"].to_dense()] == kept
        assert np.allclose(batch.dense[:, 0], np.log1p(rows.column("price").to_numpy()), atol=1e-6)
        assert batch.labels[:, 0].tolist() == rows.column("label").to_pylist()
        assert batch.event_time_us is not None
        assert batch.event_time_us.tolist() == rows.column("time").cast(pa.timestamp("us")).cast(pa.int64()).to_pylist()


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_the_shuffle_is_a_seeded_permutation_that_changes_with_the_epoch(make_config: Make, part: Part) -> None:
    log = Log(make_config())
    plain = flat(read(log, part))
    first, again = (flat(read(log, part, seed=1, epoch=0)) for _ in range(2))
    other = flat(read(log, part, seed=1, epoch=1))
    assert first == again
    assert sorted(first) == sorted(other) == sorted(plain)
    assert first != plain
    assert first != other


def test_parts_are_disjoint_and_cover_the_log(make_config: Make) -> None:
    log = Log(make_config())
    parts = {part: flat(read(log, part)) for part in ("train", "validation", "test")}  # type: ignore[arg-type]
    assert sorted(row for rows in parts.values() for row in rows) == list(range(1800))
    assert 0.15 < len(parts["test"]) / 1800 < 0.25
    assert log.count_rows("test") == len(parts["test"])


@settings(deadline=None, max_examples=40)
@given(
    blocks=st.lists(st.integers(0, 30), min_size=1, max_size=12),
    batch_size=st.integers(1, 25),
    ranks=st.integers(1, 5),
    stop=st.integers(0, 30),
    later_ranks=st.integers(1, 5),
)
def test_the_deal_gives_every_row_once_and_goes_on_with_other_ranks(
    blocks: list[int], batch_size: int, ranks: int, stop: int, later_ranks: int
) -> None:
    def rows(shares: list[Any]) -> list[tuple[int, int]]:
        return [(s.block, row) for s in shares for row in range(s.start, s.stop)]

    dealt: list[tuple[int, int]] = []
    position = Position(0)
    for number, (step, after) in enumerate(
        Dealer(len(blocks), blocks.__getitem__, batch_size, ranks, position).steps()
    ):
        if number == stop:
            break
        assert len(step) == ranks
        assert all(len(rows(shares)) <= batch_size for shares in step)
        dealt += [row for shares in step for row in rows(shares)]
        position = Position.from_json(after.to_json())
    for step, _ in Dealer(len(blocks), blocks.__getitem__, batch_size, later_ranks, position).steps():
        dealt += [row for shares in step for row in rows(shares)]
    assert sorted(dealt) == [(block, row) for block, count in enumerate(blocks) for row in range(count)]


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_ranks_share_the_rows_and_take_the_same_number_of_steps(make_config: Make, ranks: int) -> None:
    log = Log(make_config())
    by_rank = [read(log, "train", seed=1, rank=rank, world_size=ranks) for rank in range(ranks)]
    assert len({len(batches) for batches in by_rank}) == 1
    assert sorted(row for batches in by_rank for row in flat(batches)) == sorted(flat(read(log, "train")))


@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stop=st.integers(1, 17), ranks=st.integers(1, 3))
def test_a_position_resumes_at_the_exact_row(make_config: Make, stop: int, ranks: int) -> None:
    log = Log(make_config())
    whole = read(log, "train", seed=1)
    reader = ParquetReader(log, "train", batch_size=64, fitted=FITTED, seed=1)
    number = min(stop, len(whole))
    items = list(reader)[:number]
    position = Position.from_json(items[-1].position.to_json())
    rest = [read(log, "train", seed=1, position=position, rank=r, world_size=ranks) for r in range(ranks)]
    if ranks == 1:
        assert rest[0] == whole[number:]
    assert sorted(row for batches in rest for row in flat(batches)) == sorted(flat(whole[number:]))


def test_an_abandoned_reader_leaves_no_thread_behind(make_config: Make) -> None:
    items = iter(ParquetReader(Log(make_config()), None, batch_size=10, fitted=FITTED))
    next(items)
    items.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("embtables-reader")]


def test_where_joins_and_nulls(make_config: Make, tmp_path: Path) -> None:
    side = tmp_path / "users.parquet"
    pq.write_table(pa.table({"id": pa.array(range(40), pa.int32()), "town": [None, "Ulm", "Rom", "Ulm"] * 10}), side)
    config = make_config(
        **{
            "data.join": [{"path": str(side), "key": "user", "side_key": "id", "prefix": "user_"}],
            "data.where": ["user_town == Ulm", "price < 1.5"],
        }
    )
    columns = ("user", "user_town", "price")
    reader = ParquetReader(Log(config), None, batch_size=500, fitted=FITTED, extra_columns=columns)
    extra = pa.concat_tables([item.extra for item in reader])
    assert set(extra.column("user_town").to_pylist()) == {"Ulm"}
    assert all(user % 4 in (1, 3) for user in extra.column("user").to_pylist())
    assert max(extra.column("price").to_pylist()) < 1.5
    nobody = make_config(**{"data.where": ["item is null"]})
    assert read(Log(nobody)) == []


def test_a_side_table_must_have_unique_and_complete_keys(make_config: Make, tmp_path: Path) -> None:
    side = tmp_path / "users.parquet"
    feature = {"name": "town", "table": "item"}

    def config(**join: Any) -> RunConfig:
        made = make_config(**{"data.join": [{"path": str(side), "key": "user", **join}]})
        features = [*made.model_dump(mode="json")["features"], feature]
        return make_config(**{"data.join": [{"path": str(side), "key": "user", **join}], "features": features})

    pq.write_table(pa.table({"user": [1, 2, 2], "town": ["a", "b", "c"]}), side)
    with pytest.raises(DataError, match=r"column user: holds 2 2 times"):
        Log(config())
    pq.write_table(pa.table({"user": list(range(39)), "town": ["a"] * 39}), side)
    with pytest.raises(DataError, match=r"1 keys of the log are missing, for example 39; .*on_missing: null"):
        read(Log(config()))
    rows = flat(read(Log(config(on_missing="null"))))
    assert rows == list(range(1800))


def test_hive_folders_become_columns_and_column_splits_use_them(
    make_config: Make, tmp_path: Path, log_dir: Path
) -> None:
    root = tmp_path / "hive"
    for number, path in enumerate(sorted(log_dir.iterdir())):
        folder = root / f"day={number}" / ("kind=train" if number else "kind=test")
        folder.mkdir(parents=True)
        pq.write_table(pq.read_table(path), folder / "x.parquet")
    (root / "_SUCCESS").write_text("")
    split = {"kind": "column", "column": "kind", "test": ["test"]}
    config = make_config(**{"data.path": str(root), "data.split": split})
    assert flat(read(Log(config), "test")) == list(range(600))
    assert flat(read(Log(config), "train")) == list(range(600, 1800))
    for path in (f"file://{root}", f"{root}/day=1/*/*.parquet", str(root / "day=1" / "kind=train" / "x.parquet")):
        located = make_config(**{"data.path": path})
        assert len(flat(read(Log(located)))) == (1800 if path.startswith("file") else 600)


def test_files_may_differ_in_width_and_encoding(make_config: Make, log_dir: Path) -> None:
    path = log_dir / "part-1.parquet"
    table = pq.read_table(path)
    changed = table.set_column(1, "user", table.column("user").cast(pa.int16()))
    changed = changed.set_column(2, "item", table.column("item").cast(pa.large_string()).dictionary_encode())
    pq.write_table(changed, path, row_group_size=100)
    whole = ParquetReader(Log(make_config(**{"data.block_rows": 10_000})), None, batch_size=1800, fitted=FITTED)
    (item,) = list(whole)
    users = pa.concat_tables([pq.read_table(p, columns=["row"]) for p in sorted(log_dir.iterdir())])
    assert item.batch.num_rows == users.num_rows
    assert item.batch.ids["item"].values()[600:1200].tolist() == hash_strings(table.column("item")).tolist()


def test_time_splits_and_timestamp_units(make_config: Make) -> None:
    split = {"kind": "time", "validation_from": "1970-01-01T10:00:00", "test_from": "1970-01-01T20:00:00"}
    log = Log(make_config(**{"data.split": split}))
    assert flat(read(log, "train")) == list(range(600))
    assert flat(read(log, "validation")) == list(range(600, 1200))
    assert flat(read(log, "test")) == list(range(1200, 1800))


def test_transforms_are_fitted_on_the_training_part_only(make_config: Make, log_dir: Path) -> None:
    config = make_config(**{"dense": [{"column": "price", "transforms": ["standardise"]}]})
    log = Log(config)
    table = pa.concat_tables([pq.read_table(p) for p in sorted(log_dir.iterdir())])
    train = table.take(pa.array(flat(read(log, "train")))).column("price").to_numpy()
    mean, std = log.fit_transforms(0).moments["price"]
    assert mean == pytest.approx(train.mean())
    assert std == pytest.approx(train.std())
    assert abs(mean - table.column("price").to_numpy().mean()) > 1e-6

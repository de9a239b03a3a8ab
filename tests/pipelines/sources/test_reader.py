"""The reader: every row once, whatever the ranks; seeded orders; exact resumption; joins, filters, splits."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embtables.errors import DataError
from embtables.ids.strings import hash_strings
from embtables.inputs.features import FittedTransforms, Needs
from embtables.pipelines.config import RunConfig
from embtables.pipelines.sources.deal import Dealer, Share, needed, part_of
from embtables.pipelines.sources.parquet import Log, LogPart, ParquetReader, Position
from tests.pipelines.conftest import open_log

Make = Callable[..., RunConfig]
FITTED = FittedTransforms({"price": (0.0, 1.0)})


def read(log: Log, part: LogPart | None = None, **options: Any) -> list[list[int]]:
    """Row numbers of each batch."""
    options = {"batch_size": 64, "fitted": FITTED, **options}
    reader = ParquetReader(log, part, extra_columns=("row",), **options)
    return [[] if item.extra is None else item.extra.column("row").to_pylist() for item in reader]


def flat(batches: list[list[int]]) -> list[int]:
    return [row for batch in batches for row in batch]


def test_rows_come_in_path_order_and_batches_are_full(make_config: Make) -> None:
    batches = read(open_log(make_config()))
    assert flat(batches) == list(range(1800))
    assert {len(b) for b in batches[:-1]} == {64}


def test_values_are_those_of_the_files(make_config: Make, log_dir: Path) -> None:
    table = pa.concat_tables([pq.read_table(p) for p in sorted(log_dir.iterdir())])
    reader = ParquetReader(open_log(make_config()), None, batch_size=256, fitted=FITTED, seed=3, extra_columns=("row",))
    for item in reader:
        assert item.extra is not None
        rows = table.take(item.extra.column("row").combine_chunks())
        batch = item.batch
        assert batch.ids["user"].values.tolist() == rows.column("user").to_pylist()
        assert batch.ids["item"].values.tolist() == hash_strings(rows.column("item")).tolist()
        kept = [tags[-3:] for tags in rows.column("tags").to_pylist()]
        assert [t.tolist() for t in batch.ids["tags"].rows()] == kept
        assert np.allclose(batch.dense[:, 0], np.log1p(rows.column("price").to_numpy()), atol=1e-6)
        assert batch.labels[:, 0].tolist() == rows.column("label").to_pylist()
        assert batch.event_time_us is not None
        assert batch.event_time_us.tolist() == rows.column("time").cast(pa.timestamp("us")).cast(pa.int64()).to_pylist()


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_the_shuffle_is_a_seeded_permutation_that_changes_with_the_epoch(make_config: Make, part: LogPart) -> None:
    log = open_log(make_config())
    plain = flat(read(log, part))
    first, again = (flat(read(log, part, seed=1, epoch=0)) for _ in range(2))
    other = flat(read(log, part, seed=1, epoch=1))
    assert first == again
    assert sorted(first) == sorted(other) == sorted(plain)
    assert first != plain
    assert first != other


def test_parts_are_disjoint_and_cover_the_log(make_config: Make) -> None:
    log = open_log(make_config())
    parts = {part: flat(read(log, part)) for part in ("train", "validation", "test")}  # type: ignore[arg-type]
    assert sorted(row for rows in parts.values() for row in rows) == list(range(1800))
    assert 0.15 < len(parts["test"]) / 1800 < 0.25
    assert log.count_rows("test") == len(parts["test"])


@settings(deadline=None, max_examples=40)
@given(
    blocks=st.lists(st.integers(0, 30), min_size=1, max_size=12),
    batch_size=st.integers(1, 25),
    stop=st.integers(0, 30),
)
def test_the_deal_gives_every_row_once_in_full_batches(blocks: list[int], batch_size: int, stop: int) -> None:
    def rows(shares: list[Share]) -> list[tuple[int, int]]:
        return [(s.block, row) for s in shares for row in range(s.start, s.stop)]

    def steps(position: Position) -> list[tuple[list[Share], Position]]:
        return list(Dealer(len(blocks), blocks.__getitem__, batch_size, position).steps())

    dealt = steps(Position(0))
    assert [row for shares, _ in dealt for row in rows(shares)] == [
        (b, r) for b, n in enumerate(blocks) for r in range(n)
    ]
    assert all(len(rows(shares)) == batch_size for shares, _ in dealt[:-1])
    position = Position.from_json(dealt[stop][1].to_json()) if stop < len(dealt) else Position(0, len(blocks))
    assert steps(position) == dealt[stop + 1 :]


@settings(deadline=None, max_examples=200)
@given(
    blocks=st.lists(st.integers(0, 30), min_size=1, max_size=8),
    batch_size=st.integers(1, 25),
    ranks=st.integers(1, 5),
    stop=st.integers(0, 12),
)
def test_what_a_rank_needs_of_a_block_is_known_before_the_next_is_read(
    blocks: list[int], batch_size: int, ranks: int, stop: int
) -> None:
    batches = list(Dealer(len(blocks), blocks.__getitem__, batch_size, Position(0)).steps())
    position = batches[stop][1] if stop < len(batches) else Position(0)
    used = dict(position.partial)
    rest = list(Dealer(len(blocks), blocks.__getitem__, batch_size, position).steps())
    for rank in range(ranks):
        waiting, needs = 0, {}
        for block in (*used, *range(position.next_block, len(blocks))):
            places = needed(blocks[block], used.get(block, 0), waiting % batch_size, batch_size, rank, ranks)
            assert (np.diff(places) > 0).all()
            needs[block] = set(places.tolist())
            waiting += blocks[block] - used.get(block, 0)
        spare = {block: len(places) for block, places in needs.items()}
        for shares, _ in rest:
            for share in part_of(shares, rank, ranks):
                assert needs[share.block] >= set(range(share.start, share.stop))
                spare[share.block] -= share.stop - share.start
        # What is not its own is of one batch of the block at most.
        assert all(rows <= batch_size for rows in spare.values())
        if ranks == 1:
            assert set(spare.values()) <= {0}


def parts(log: Log, part: LogPart | None, ranks: int, **options: Any) -> list[list[list[int]]]:
    """Row numbers of each rank's part of each batch."""
    by_rank = [read(log, part, rank=rank, world_size=ranks, **options) for rank in range(ranks)]
    return [list(batch) for batch in zip(*by_rank, strict=True)]


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 70])
@pytest.mark.parametrize("changes", [{}, {"data.shuffle": None}])
def test_the_ranks_parts_are_the_batches_of_one_reader(make_config: Make, ranks: int, changes: dict[str, Any]) -> None:
    """Seventy ranks share sixty-four rows: some get none."""
    log = open_log(make_config(**changes))
    whole = read(log, "train", seed=1)
    found = parts(log, "train", ranks, seed=1)
    assert [flat(batch) for batch in found] == whole
    assert sorted(flat(whole)) == sorted(flat(read(log, "train")))
    for batch in found:
        sizes = [len(part) for part in batch]
        assert max(sizes) - min(sizes) <= 1


@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    stop=st.integers(1, 17), ranks=st.integers(1, 4), later=st.integers(1, 4), batch_size=st.sampled_from([7, 64, 500])
)
def test_a_position_resumes_at_the_exact_row_with_any_number_of_ranks(
    make_config: Make, stop: int, ranks: int, later: int, batch_size: int
) -> None:
    log = open_log(make_config())
    whole = read(log, "train", seed=1, batch_size=batch_size)
    reader = ParquetReader(log, "train", batch_size=batch_size, fitted=FITTED, seed=1, rank=ranks - 1, world_size=ranks)
    number = min(stop, len(whole))
    with closing(iter(reader)) as items:
        position = Position.from_json([next(items) for _ in range(number)][-1].position.to_json())
    rest = parts(log, "train", later, seed=1, position=position, batch_size=batch_size)
    assert [flat(batch) for batch in rest] == whole[number:]


@pytest.mark.parametrize("ranks", [2, 3, 64])
def test_a_ranks_part_has_the_values_of_its_rows(make_config: Make, ranks: int) -> None:
    """Also where it has no rows: a batch all the same, with every feature and column."""
    log = open_log(make_config(**{"sample_weight": "price"}))
    options: dict[str, Any] = {"batch_size": 50, "fitted": FITTED, "seed": 1, "extra_columns": ("row", "item")}
    readers = [ParquetReader(log, "test", rank=rank, world_size=ranks, **options) for rank in range(ranks)]
    for whole, *each in zip(ParquetReader(log, "test", **options), *readers, strict=True):
        batches = [item.batch for item in each]
        assert sum(batch.num_rows for batch in batches) == whole.batch.num_rows
        for feature in ("user", "item", "tags"):
            pooled = [t.tolist() for batch in batches for t in batch.ids[feature].rows()]
            assert pooled == [t.tolist() for t in whole.batch.ids[feature].rows()]
        for name in ("dense", "labels", "weight", "event_time_us"):
            assert torch.cat([getattr(batch, name) for batch in batches]).equal(getattr(whole.batch, name))
        assert pa.concat_tables([item.extra for item in each]).equals(whole.extra.combine_chunks())
        assert all(item.position == whole.position for item in each)


def test_labels_and_weights_are_read_where_the_task_needs_them(make_config: Make) -> None:
    columns = [{"column": "no_such_label"}]
    log = open_log(make_config(**{"sample_weight": "no_such_weight", "labels": columns}))
    neither = Needs(labels=False, weight=False)
    for item in ParquetReader(log, "train", batch_size=50, fitted=FITTED, needs=neither):
        assert item.batch.labels.shape == (item.batch.num_rows, 0)
        assert item.batch.weight is None
        assert item.batch.event_time_us is not None
    for needs, missing in ((Needs(weight=False), "no_such_label"), (Needs(labels=False), "no_such_weight")):
        with pytest.raises(DataError, match=f"column {missing}: is missing"):
            ParquetReader(log, "train", batch_size=50, fitted=FITTED, needs=needs)


def test_an_abandoned_reader_leaves_no_thread_behind(make_config: Make) -> None:
    items = iter(ParquetReader(open_log(make_config()), None, batch_size=10, fitted=FITTED))
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
    reader = ParquetReader(open_log(config), None, batch_size=500, fitted=FITTED, extra_columns=columns)
    extra = pa.concat_tables([item.extra for item in reader])
    assert set(extra.column("user_town").to_pylist()) == {"Ulm"}
    assert all(user % 4 in (1, 3) for user in extra.column("user").to_pylist())
    assert max(extra.column("price").to_pylist()) < 1.5
    nobody = make_config(**{"data.where": ["item is null"]})
    assert read(open_log(nobody)) == []


def test_a_side_table_must_have_unique_and_complete_keys(make_config: Make, tmp_path: Path) -> None:
    side = tmp_path / "users.parquet"
    feature = {"name": "town", "table": "item"}

    def config(**join: Any) -> RunConfig:
        made = make_config(**{"data.join": [{"path": str(side), "key": "user", **join}]})
        features = [*made.model_dump(mode="json")["features"], feature]
        return make_config(**{"data.join": [{"path": str(side), "key": "user", **join}], "features": features})

    pq.write_table(pa.table({"user": [1, 2, 2], "town": ["a", "b", "c"]}), side)
    with pytest.raises(DataError, match=r"column user: holds 2 2 times"):
        open_log(config())
    pq.write_table(pa.table({"user": list(range(39)), "town": ["a"] * 39}), side)
    with pytest.raises(DataError, match=r"1 keys of the log are missing, for example 39; .*on_missing: null"):
        read(open_log(config()))
    rows = flat(read(open_log(config(on_missing="null"))))
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
    assert flat(read(open_log(config), "test")) == list(range(600))
    assert flat(read(open_log(config), "train")) == list(range(600, 1800))
    for path in (f"file://{root}", f"{root}/day=1/*/*.parquet", str(root / "day=1" / "kind=train" / "x.parquet")):
        located = make_config(**{"data.path": path})
        assert len(flat(read(open_log(located)))) == (1800 if path.startswith("file") else 600)


def test_files_may_differ_in_width_and_encoding(make_config: Make, log_dir: Path) -> None:
    path = log_dir / "part-1.parquet"
    table = pq.read_table(path)
    changed = table.set_column(1, "user", table.column("user").cast(pa.int16()))
    changed = changed.set_column(2, "item", table.column("item").cast(pa.large_string()).dictionary_encode())
    pq.write_table(changed, path, row_group_size=100)
    whole = ParquetReader(open_log(make_config(**{"data.block_rows": 10_000})), None, batch_size=1800, fitted=FITTED)
    (item,) = list(whole)
    users = pa.concat_tables([pq.read_table(p, columns=["row"]) for p in sorted(log_dir.iterdir())])
    assert item.batch.num_rows == users.num_rows
    assert item.batch.ids["item"].values[600:1200].tolist() == hash_strings(table.column("item")).tolist()


def test_time_splits_and_timestamp_units(make_config: Make) -> None:
    split = {"kind": "time", "validation_from": "1970-01-01T10:00:00", "test_from": "1970-01-01T20:00:00"}
    log = open_log(make_config(**{"data.split": split}))
    assert flat(read(log, "train")) == list(range(600))
    assert flat(read(log, "validation")) == list(range(600, 1200))
    assert flat(read(log, "test")) == list(range(1200, 1800))


def test_transforms_are_fitted_on_the_training_part_only(make_config: Make, log_dir: Path) -> None:
    config = make_config(**{"dense": [{"column": "price", "transforms": ["standardise"]}]})
    log = open_log(config)
    table = pa.concat_tables([pq.read_table(p) for p in sorted(log_dir.iterdir())])
    train = table.take(pa.array(flat(read(log, "train")))).column("price").to_numpy()
    mean, std = log.fit_transforms(0).moments["price"]
    assert mean == pytest.approx(train.mean())
    assert std == pytest.approx(train.std())
    assert abs(mean - table.column("price").to_numpy().mean()) > 1e-6

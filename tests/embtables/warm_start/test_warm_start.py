"""Warm start: rows from parquet files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchrec import KeyedJaggedTensor

from embtables import EmbeddingBagCollection, Feature, Tables
from embtables.errors import BadFileError, ConfigError, DataError
from embtables.inputs.columns import feature_ids
from embtables.schema import Hash, Identity, MinCount, MultiHash
from embtables.warm_start import from_parquet
from embtables.warm_start import parquet as reading
from tests.embtables.warm_start.warm_start_for_tests import D, collisionless, fixed


def vectors(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, D)).astype(np.float32)


def write(path: Path, ids: Any, rows: Any, **options: Any) -> str:
    rows = rows if isinstance(rows, pa.Array) else pa.array(list(rows), pa.list_(pa.float32()))
    ids = ids if isinstance(ids, pa.Array) else pa.array(ids)
    pq.write_table(pa.table({"id": ids, "vector": rows}), path, **options)
    return str(path)


def load(tables: Tables, path: str, **options: Any) -> Any:
    return from_parquet(tables, "t", path, id_column="id", vector_column="vector", **options)


FLOATS: dict[str, Callable[[np.ndarray], pa.Array]] = {
    "list of float32": lambda v: pa.array(list(v), pa.list_(pa.float32())),
    "list of float64": lambda v: pa.array(list(v.astype(np.float64)), pa.list_(pa.float64())),
    "large list": lambda v: pa.array(list(v), pa.large_list(pa.float32())),
    "fixed size": lambda v: pa.FixedSizeListArray.from_arrays(pa.array(v.ravel()), D),
    "float16": lambda v: pa.FixedSizeListArray.from_arrays(pa.array(v.ravel().astype(np.float16)), D),
}


@pytest.mark.parametrize("kind", FLOATS)
def test_every_layout_of_vectors_is_read(kind: str, tmp_path: Path) -> None:
    rows, ids = vectors(300), np.arange(300) * 7 - 900
    expected = rows.astype(np.float16).astype(np.float32) if kind == "float16" else rows
    path = write(tmp_path / "v.parquet", ids, FLOATS[kind](rows), row_group_size=70)
    tables, seen = collisionless(), []
    done = load(tables, path, on_rows=seen.append)
    assert (done.table, done.rows, done.duplicates) == ("t", 300, 0)
    assert np.array_equal(tables.get("t", torch.from_numpy(ids)).numpy(), expected)
    assert sum(seen) == 300
    assert len(seen) == 5


IDS: dict[str, pa.Array] = {
    "int64": pa.array([5, -(2**63), 2**63 - 1, 0]),
    "int32": pa.array([5, -7, 2**31 - 1, 0], pa.int32()),
    "uint64": pa.array([5, 2**64 - 1, 2**63, 0], pa.uint64()),
    "strings": pa.array(["a", "", "größe", "item-7"]),
    "dictionary": pa.array(["a", "", "größe", "item-7"]).dictionary_encode(),
    "timestamps": pa.array([5, -7, 2**40, 0], pa.timestamp("ms")),
}


@pytest.mark.parametrize("store", ["host", "reference"])
@pytest.mark.parametrize("kind", IDS)
def test_ids_become_keys_as_in_training(kind: str, store: Any, tmp_path: Path) -> None:
    rows = vectors(4)
    tables = collisionless(store=store)
    load(tables, write(tmp_path / "v.parquet", IDS[kind], rows))
    # The reader's own way from a log's column to ids.
    ids = feature_ids(Feature(name="f", column="id", table="t"), {"id": IDS[kind]}, None).values
    batch = KeyedJaggedTensor(["f"], torch.from_numpy(ids.copy()), lengths=torch.ones(4, dtype=torch.int64))
    with torch.no_grad():
        assert np.array_equal(EmbeddingBagCollection.over(tables)(batch).values().numpy(), rows)
    assert len(tables.keys("t")) == 4  # type: ignore[arg-type]


@settings(max_examples=40, deadline=None)
@given(ids=st.lists(st.integers(-3, 12), min_size=1, max_size=40), group=st.integers(1, 9))
def test_of_duplicates_the_last_vector_counts(tmp_path_factory: Any, ids: list[int], group: int) -> None:
    rows = vectors(len(ids))
    path = write(tmp_path_factory.mktemp("dup") / "v.parquet", ids, rows, row_group_size=group)
    tables = collisionless()
    done = load(tables, path)
    last = {value: rows[place] for place, value in enumerate(ids)}
    assert (done.rows, done.duplicates) == (len(last), len(ids) - len(last))
    assert np.array_equal(tables.get("t", torch.tensor(list(last))).numpy(), np.stack(list(last.values())))


@pytest.mark.parametrize("store", ["host", "fbgemm", "reference"])
def test_a_fixed_table_takes_vectors_by_id(store: Any, tmp_path: Path) -> None:
    rows = vectors(30)
    tables = fixed(30, Identity(), store)
    before = tables.weight("t")
    done = load(tables, write(tmp_path / "v.parquet", np.arange(20), rows[:20]))
    assert done.rows == 20
    assert np.array_equal(tables.weight("t").numpy()[:20], rows[:20])
    assert torch.equal(tables.weight("t")[20:], before[20:])
    hashed = fixed(7, Hash(), store)  # thirty ids share seven rows
    done = load(hashed, write(tmp_path / "h.parquet", np.arange(30), rows))
    assert done.rows <= 7
    assert done.rows + done.duplicates == 30


def test_rows_are_admitted_at_once_and_live_from_the_first_batch_on(tmp_path: Path) -> None:
    path = write(tmp_path / "v.parquet", [1, 2, 3], vectors(3))
    tables = collisionless(Identity(), admission=MinCount(count=5), ttl_seconds=100)
    load(tables, path)
    view = EmbeddingBagCollection.over(tables)

    def see(second: int, key: int) -> None:
        tables.advance(torch.tensor([second * 1_000_000]))
        view(KeyedJaggedTensor(["f"], torch.tensor([key]), lengths=torch.tensor([1]))).values().sum().backward()
        tables.step()

    see(1_700_000_000, 1)  # the clock begins: no row is a lifetime old
    assert tables.keys("t").tolist() == [1, 2, 3]  # type: ignore[union-attr]
    assert np.array_equal(tables.get("t", torch.tensor([2, 3])).numpy(), vectors(3)[1:])
    see(1_700_000_060, 2)
    see(1_700_000_120, 2)
    assert tables.keys("t").tolist() == [2]  # type: ignore[union-attr]


def test_more_rows_than_max_rows_are_refused_unless_nothing_is_evicted(tmp_path: Path) -> None:
    path = write(tmp_path / "v.parquet", np.arange(50), vectors(50))
    with pytest.raises(DataError, match=r"table t: holds 50 rows after the warm start, more than its max_rows of 49"):
        load(collisionless(max_rows=49), path)
    assert load(collisionless(max_rows=50), path).rows == 50
    assert load(collisionless(max_rows=49, trainable=False), path).rows == 50


F32 = pa.list_(pa.float32())
WRONG: dict[str, tuple[Any, Any, str]] = {
    "a shorter vector": (
        [1, 2, 3],
        pa.array([[1.0] * 4, [1.0] * 4, [1.0] * 3], F32),
        "row_group 1, column vector, row 2: holds a vector of 3 values; the table's dim is 4",
    ),
    "a longer vector": (
        [1, 2],
        pa.array([[1.0] * 4, [1.0] * 900], F32),
        "row_group 0, column vector, row 1: holds a vector of 900 values",
    ),
    "no vector": (
        [1, 2, 3],
        pa.array([[1.0] * 4, [1.0] * 4, None], F32),
        "row_group 1, column vector, row 2: is null; every id needs a vector",
    ),
    "a null within": (
        [1, 2],
        pa.array([[1.0] * 4, [1.0, None, 1.0, 1.0]], F32),
        "row_group 0, column vector, row 1: holds a vector with a null in it",
    ),
    "no id": (
        pa.array([1, 2, None]),
        pa.array([[1.0] * 4] * 3, F32),
        "row_group 1, column id, row 2: is null; every vector needs an id",
    ),
    "nan": (
        [1, 2],
        pa.array([[1.0] * 4, [1.0, float("nan"), 1.0, 1.0]], F32),
        "row_group 0, column vector, row 1: holds a vector with a number that is not finite",
    ),
    "beyond float32": (
        [1],
        pa.array([[1e300] * 4], pa.list_(pa.float64())),
        "row_group 0, column vector, row 0: holds a vector with a number that is not finite as float32",
    ),
    "integers": (
        [1],
        pa.array([[1] * 4], pa.list_(pa.int64())),
        "column vector: holds list<element: int64>; vectors are lists of float",
    ),
    "no list": ([1], pa.array([1.0]), "column vector: holds double; vectors are lists"),
    "float ids": (
        [1.5],
        pa.array([[1.0] * 4], F32),
        "column id: holds double, which cannot be ids; cast it to an integer",
    ),
    "bytes that are no text": (
        pa.array([b"a", b"\xff"]).view(pa.string()),
        pa.array([[1.0] * 4] * 2, F32),
        "row_group 0, column id, row 1: holds bytes that are not UTF-8",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_reported_with_its_place(case: str, tmp_path: Path) -> None:
    ids, rows, text = WRONG[case]
    path = write(tmp_path / "v.parquet", ids, rows, row_group_size=2)
    with pytest.raises(DataError) as raised:
        load(collisionless(), path)
    assert f"file {path}, {text}" in str(raised.value)


def test_files_and_columns_that_are_not_there(tmp_path: Path) -> None:
    path = write(tmp_path / "v.parquet", [1], vectors(1))
    with pytest.raises(DataError, match=r"column emb: is missing; the file has: id, vector"):
        from_parquet(collisionless(), "t", path, id_column="id", vector_column="emb")
    with pytest.raises(BadFileError, match=r"none\.parquet: cannot be read as parquet"):
        load(collisionless(), str(tmp_path / "none.parquet"))
    (tmp_path / "no.parquet").write_bytes(b"PAR1 and nothing else PAR1")
    with pytest.raises(BadFileError, match=r"no\.parquet: cannot be read as parquet"):
        load(collisionless(), str(tmp_path / "no.parquet"))
    with pytest.raises(ConfigError, match=r"is a pickle by its name.*safetensors\.torch\.save_file"):
        load(collisionless(), str(tmp_path / "v.pt"))
    with pytest.raises(DataError, match=r"v\.parquet, row_group 0, column id: feature f: id 1 is outside 0\.\.0"):
        load(fixed(1, Identity()), path)
    with pytest.raises(ConfigError, match="feature 'f' has 2 rows per id"):
        load(fixed(9, MultiHash()), path)
    with pytest.raises(ConfigError, match="table u: there is no such table"):
        from_parquet(collisionless(), "u", path, id_column="id", vector_column="vector")


def test_vectors_far_too_long_are_not_read_all_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_VALUES_PER_CHUNK", 1000)
    wide = pa.array([[0.0] * 500] * 40, F32)
    sizes: list[int] = []
    make = reading._Chunk.__init__

    def noting(self: Any, batch: pa.RecordBatch, *rest: Any) -> None:
        sizes.append(len(batch.column("vector").flatten()))
        make(self, batch, *rest)

    monkeypatch.setattr(reading._Chunk, "__init__", noting)
    with pytest.raises(DataError, match="holds a vector of 500 values"):
        load(collisionless(), write(tmp_path / "v.parquet", np.arange(40), wide))
    assert max(sizes) <= 1000

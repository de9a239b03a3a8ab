"""Warm start: rows from parquet files and from the state_dict of real TorchRec modules."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
import torchrec
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor
from torchrec import KeyedJaggedTensor
from torchrec.modules.embedding_configs import EmbeddingBagConfig, EmbeddingConfig

from embtables import CollisionlessTable, EmbeddingBagCollection, EmbeddingCollection, Feature, FixedTable, Tables
from embtables.columns import feature_ids
from embtables.errors import BadFileError, ConfigError, DataError
from embtables.schema import Adagrad, Hash, Identity, MinCount, MultiHash, Normal
from embtables.warm_start import from_parquet, from_safetensors, from_state_dict
from embtables.warm_start import parquet as reading

LEARNS = Adagrad(learning_rate=0.1)
D = 4


def collisionless(encoder: Any = None, store: Any = "host", **changes: Any) -> Tables:
    config = CollisionlessTable(name="t", dim=D, optimizer=LEARNS, initializer=Normal(std=1.0), **changes)
    return Tables([config], [Feature(name="f", table="t", encoder=encoder or Hash(seed=3))], seed=1, row_store=store)


def fixed(num_rows: int, encoder: Any, store: Any = "host") -> Tables:
    config = FixedTable(name="t", dim=D, num_rows=num_rows, optimizer=LEARNS, initializer=Normal(std=1.0))
    return Tables([config], [Feature(name="f", table="t", encoder=encoder)], seed=1, row_store=store)


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
def test_what_is_wrong_is_told_with_its_place(case: str, tmp_path: Path) -> None:
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
    with pytest.raises(ConfigError, match="feature 'f' has 2 rows an id"):
        load(fixed(9, MultiHash()), path)
    with pytest.raises(ConfigError, match="table u: there is no such table"):
        from_parquet(collisionless(), "u", path, id_column="id", vector_column="vector")


def test_vectors_far_too_long_are_not_read_all_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_VALUES_A_PART", 1000)
    wide = pa.array([[0.0] * 500] * 40, F32)
    sizes: list[int] = []
    part = reading._Part.__init__

    def noting(self: Any, batch: pa.RecordBatch, *rest: Any) -> None:
        sizes.append(len(batch.column("vector").flatten()))
        part(self, batch, *rest)

    monkeypatch.setattr(reading._Part, "__init__", noting)
    with pytest.raises(DataError, match="holds a vector of 500 values"):
        load(collisionless(), write(tmp_path / "v.parquet", np.arange(40), wide))
    assert max(sizes) <= 1000


# ---- TorchRec


def bags(names: tuple[str, ...] = ("item", "user")) -> torchrec.EmbeddingBagCollection:
    configs = [
        EmbeddingBagConfig(name=n, embedding_dim=D, num_embeddings=20 + i, feature_names=[f"f_{n}"])
        for i, n in enumerate(names)
    ]
    return torchrec.EmbeddingBagCollection(tables=configs)


class Model(nn.Module):
    """A TorchRec model: its collections lie somewhere below, dense layers beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.sparse = nn.ModuleDict({"embeddings": bags()})
        config = EmbeddingConfig(name="clicks", embedding_dim=D, num_embeddings=9, feature_names=["f_clicks"])
        self.sequences = torchrec.EmbeddingCollection(tables=[config])
        self.over = nn.Linear(3, 3)


def of_torchrec(kind: str = "fixed", store: Any = "host", **changes: Any) -> Tables:
    sizes = {"item": 20, "user": 21, "clicks": 9}
    common = {"dim": D, "optimizer": LEARNS, **changes}
    configs: list[Any] = [
        FixedTable(name=n, num_rows=rows, **common) if kind == "fixed" else CollisionlessTable(name=n, **common)
        for n, rows in sizes.items()
    ]
    features = [
        Feature(name=f"f_{n}", table=n, encoder=Identity(), pooling="none" if n == "clicks" else "sum") for n in sizes
    ]
    return Tables(configs, features, seed=0, row_store=store)


def ids_of(*features: str) -> KeyedJaggedTensor:
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(0, 4, (5 * len(features),), generator=generator)
    values = torch.randint(0, 9, (int(lengths.sum()),), generator=generator)
    return KeyedJaggedTensor(list(features), values, lengths=lengths)


@pytest.mark.parametrize(
    ("kind", "store"),
    [
        ("fixed", "host"),
        ("fixed", "fbgemm"),
        ("fixed", "reference"),
        ("collisionless", "host"),
        ("collisionless", "reference"),
    ],
)
def test_lookups_after_it_are_those_of_the_torchrec_modules(kind: str, store: Any) -> None:
    model, tables = Model(), of_torchrec(kind, store)
    report = from_state_dict(tables, model.state_dict())
    assert [(w.table, w.rows, w.duplicates) for w in report.warmed] == [
        ("item", 20, 0),
        ("user", 21, 0),
        ("clicks", 9, 0),
    ]
    assert report.not_here == report.not_there == ()
    single = KeyedJaggedTensor(["f_item", "f_user"], torch.arange(20).repeat(2), lengths=torch.ones(40).long())
    sequences = ids_of("f_clicks")
    with torch.no_grad():
        ours = EmbeddingBagCollection.over(tables)
        assert torch.equal(ours(single).values(), model.sparse["embeddings"](single).values())
        pooled = ids_of("f_item", "f_user")
        assert torch.allclose(ours(pooled).values(), model.sparse["embeddings"](pooled).values(), atol=1e-6)
        found = EmbeddingCollection.over(tables)(sequences)["f_clicks"].values()
        assert torch.equal(found, model.sequences(sequences)["f_clicks"].values())


def test_what_has_no_counterpart_is_reported(tmp_path: Path) -> None:
    tables = of_torchrec()
    before = tables.weight("clicks")
    state = {f"m.{k}": v for k, v in bags(("item", "other")).state_dict().items()} | {"over.weight": torch.ones(2)}
    report = from_state_dict(tables, state)
    assert [w.table for w in report.warmed] == ["item"]
    assert (report.not_here, report.not_there) == (("other",), ("clicks", "user"))
    assert torch.equal(tables.weight("clicks"), before)
    with pytest.raises(ConfigError, match="has weights of the tables: other; here are: clicks, item, user"):
        from_state_dict(tables, bags(("other",)).state_dict())
    with pytest.raises(ConfigError, match="has weights of the tables: none; here are"):
        from_state_dict(tables, {"over.weight": torch.ones(2)})
    twice = {"a.embedding_bags.item.weight": torch.ones(20, D), "b.embeddings.item.weight": torch.ones(20, D)}
    with pytest.raises(ConfigError, match=r"table item: has two weights: a\.embedding_bags\.item\.weight and b\."):
        from_state_dict(tables, twice)


class ShardedTensor:
    """As torch.distributed names it."""


VALUES: dict[str, tuple[Any, str]] = {
    "sharded": (ShardedTensor(), "is a ShardedTensor, of which this process may hold a part only; gather() it first"),
    "integers": (torch.ones(20, D, dtype=torch.int64), "is a tensor of torch.int64, torch.strided; a dense tensor"),
    "sparse": (torch.ones(20, D).to_sparse(), "is a tensor of torch.float32, torch.sparse_coo; a dense tensor"),
    "no tensor": ([[1.0]], "is a list; a dense tensor"),
    "rows": (torch.ones(19, D), r"has shape (19, 4); table 'item' has (20, 4)"),
    "dim": (torch.ones(20, 5), r"has shape (20, 5); table 'item' has (20, 4)"),
    "nan": (torch.ones(20, D).index_fill(0, torch.tensor([7]), float("nan")), "row 7: holds a number that is not"),
}


@pytest.mark.parametrize("case", VALUES)
def test_a_weight_that_does_not_fit_is_refused(case: str) -> None:
    value, text = VALUES[case]
    tables = of_torchrec()
    before = tables.weight("user")
    name = "embedding_bags.item.weight"
    with pytest.raises(DataError) as raised:
        from_state_dict(tables, {name: value, "embedding_bags.user.weight": torch.ones(21, D)})
    assert f"tensor {name}" in str(raised.value)
    assert text in str(raised.value)
    assert torch.equal(tables.weight("user"), before)


def test_a_weight_of_which_a_process_may_hold_a_part_is_refused() -> None:
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        value = distribute_tensor(torch.ones(20, D), init_device_mesh("cpu", (1,)), [Shard(0)])
        with pytest.raises(
            DataError, match=r"is a DTensor, of which this process may hold a part only; full_tensor\(\)"
        ):
            from_state_dict(of_torchrec(), {"embedding_bags.item.weight": value})
        from_state_dict(of_torchrec(), {"embedding_bags.item.weight": value.full_tensor()})
    finally:
        distributed.destroy_process_group()


def test_collisionless_tables_need_the_dimension_and_one_encoder() -> None:
    tables = of_torchrec("collisionless")
    with pytest.raises(DataError, match=r"has shape \(3, 5\); table 'item' needs \(rows, 4\)"):
        from_state_dict(tables, {"embedding_bags.item.weight": torch.ones(3, 5)})
    config = CollisionlessTable(name="item", dim=D, optimizer=LEARNS)
    features = [Feature(name=n, table="item", encoder=e) for n, e in (("a", Identity()), ("b", Hash()))]
    with pytest.raises(ConfigError, match="table item: its features encode ids differently"):
        from_state_dict(Tables([config], features, seed=0), {"embedding_bags.item.weight": torch.ones(3, D)})


def test_a_fixed_table_takes_the_rows_by_index_whatever_its_encoder() -> None:
    value = torch.randn(9, D)
    for encoder in (Hash(seed=5), MultiHash(num_hashes=3)):
        tables = fixed(9, encoder)
        from_state_dict(tables, {"ebc.embedding_bags.t.weight": value})
        assert torch.equal(tables.weight("t"), value)


def test_a_safetensors_file(tmp_path: Path) -> None:
    state = Model().state_dict()
    path = str(tmp_path / "model.safetensors")
    safetensors.torch.save_file({n: v.to(torch.bfloat16) for n, v in state.items()}, path)
    tables, seen = of_torchrec(), []
    report = from_safetensors(tables, path, on_rows=seen.append)
    assert len(report.warmed) == 3
    assert sum(seen) == 50
    weight = state["sparse.embeddings.embedding_bags.item.weight"]
    assert torch.equal(tables.weight("item"), weight.to(torch.bfloat16).float())
    with pytest.raises(DataError, match=r"none\.safetensors: cannot be read as safetensors"):
        from_safetensors(tables, str(tmp_path / "none.safetensors"))
    Path(path).write_bytes(Path(path).read_bytes()[:100])
    with pytest.raises(DataError, match=r"model\.safetensors: cannot be read as safetensors"):
        from_safetensors(tables, path)
    for suffix in ("pt", "pth", "bin", "ckpt"):
        with pytest.raises(ConfigError, match=r"m\.\w+: is a pickle by its name"):
            from_safetensors(tables, str(tmp_path / f"m.{suffix}"))

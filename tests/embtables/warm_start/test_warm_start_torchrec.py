"""Warm start: rows from the state_dict of real TorchRec modules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torchrec
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor
from torchrec import KeyedJaggedTensor
from torchrec.modules.embedding_configs import EmbeddingBagConfig, EmbeddingConfig

from embtables import CollisionlessTable, EmbeddingBagCollection, EmbeddingCollection, Feature, FixedTable, Tables
from embtables.errors import ConfigError, DataError
from embtables.schema import Hash, Identity, MultiHash
from embtables.warm_start import from_safetensors, from_state_dict
from tests.embtables.warm_start.warm_start_for_tests import LEARNS, D, fixed


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
    with pytest.raises(ConfigError, match="has weights of the tables: other; the tables here are: clicks, item, user"):
        from_state_dict(tables, bags(("other",)).state_dict())
    with pytest.raises(ConfigError, match="has weights of the tables: none; the tables here are"):
        from_state_dict(tables, {"over.weight": torch.ones(2)})
    twice = {"a.embedding_bags.item.weight": torch.ones(20, D), "b.embeddings.item.weight": torch.ones(20, D)}
    with pytest.raises(ConfigError, match=r"table item: has two weights: a\.embedding_bags\.item\.weight and b\."):
        from_state_dict(tables, twice)


class ShardedTensor:
    """As torch.distributed names it."""


VALUES: dict[str, tuple[Any, str]] = {
    "sharded": (ShardedTensor(), "is a ShardedTensor, of which this process may hold only a part; call gather() first"),
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
            DataError, match=r"is a DTensor, of which this process may hold only a part; call full_tensor\(\)"
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

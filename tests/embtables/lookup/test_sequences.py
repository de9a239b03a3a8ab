"""The view of sequences: TorchRec's results and gradients, and what a lookup of several features counts and touches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchrec
from hypothesis import given, settings
from hypothesis import strategies as st
from torchrec import EmbeddingConfig, KeyedJaggedTensor

from embtables import CollisionlessTable, EmbeddingCollection, Feature, FixedTable, Tables
from embtables.schema import Constant, Identity, MinCount, Sgd
from tests.embtables.lookup.collections_for_tests import STORES, assert_same_step, kjt


@pytest.mark.parametrize("store", STORES)
def test_sequences_and_gradients_are_torchrecs(store: Any) -> None:
    configs = [
        EmbeddingConfig(name="t1", feature_names=["a", "b"], embedding_dim=8, num_embeddings=12),
        EmbeddingConfig(name="t2", feature_names=["b"], embedding_dim=8, num_embeddings=12),
    ]
    theirs = torchrec.EmbeddingCollection(tables=configs)
    ours = EmbeddingCollection(tables=configs, optimizer=Sgd(learning_rate=0.5), row_store=store)
    ours.load_state_dict(theirs.state_dict())
    batch = kjt(["b", "a"], 5, 12)
    out_a, out_b = ours(batch), theirs(batch)
    assert list(out_a) == list(out_b)
    for name, jagged in out_b.items():
        assert torch.allclose(out_a[name].values(), jagged.values(), atol=1e-6)
        assert torch.equal(out_a[name].lengths(), jagged.lengths())
    sum((j.values().square().sum() for j in out_a.values()), torch.zeros(())).backward()
    sum((j.values().square().sum() for j in out_b.values()), torch.zeros(())).backward()
    ours.tables.step()
    assert_same_step(ours, theirs)


@pytest.mark.parametrize("store", ["host", "reference"])
def test_a_sequence_lookup_counts_all_its_features_before_it_reads(store: Any) -> None:
    table = CollisionlessTable(
        name="t", dim=4, optimizer=Sgd(learning_rate=1.0), admission=MinCount(count=2), initializer=Constant(value=3.0)
    )
    features = [Feature(name=name, table="t", pooling="none", encoder=Identity()) for name in ("a", "b")]
    tables = Tables([table], features, seed=0, row_store=store)
    view = EmbeddingCollection.over(tables)
    batch = KeyedJaggedTensor(["a", "b"], torch.tensor([5, 7, 5]), lengths=torch.tensor([2, 0, 1, 0]))
    out = view(batch)
    assert out["a"].values()[:, 0].tolist() == [3.0, 0.0]
    assert out["b"].values()[:, 0].tolist() == [3.0]


@pytest.mark.parametrize("store", STORES)
def test_rows_of_a_sequence_that_nothing_used_are_not_touched(store: Any) -> None:
    decays = 0.0 if store == "fbgemm" else 0.5
    tables = Tables(
        [FixedTable(name=n, dim=4, num_rows=9, optimizer=Sgd(learning_rate=1.0, weight_decay=decays)) for n in "st"],
        [Feature(name=n, table=n, pooling="none", encoder=Identity()) for n in "st"],
        seed=0,
        row_store=store,
    )
    before = {n: tables.weight(n) for n in "st"}
    out = EmbeddingCollection.over(tables)(kjt(["s", "t"], 5, 9))
    out["s"].values().sum().backward()
    tables.step()
    assert not torch.equal(tables.weight("s"), before["s"])
    assert torch.equal(tables.weight("t"), before["t"])


@settings(deadline=None, max_examples=40)
@given(
    dim=st.sampled_from([1, 4, 12, 16, 64]),
    shapes=st.lists(st.tuples(st.integers(1, 30), st.integers(1, 3)), min_size=1, max_size=4),
    rows=st.integers(1, 9),
    int32=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_random_schemas_of_sequences_agree_with_torchrec(
    dim: int, shapes: list[tuple[int, int]], rows: int, int32: bool, seed: int
) -> None:
    names = [f"f{i}" for i in range(4)]
    configs = [
        EmbeddingConfig(name=f"t{i}", embedding_dim=dim, num_embeddings=size, feature_names=names[:readers])
        for i, (size, readers) in enumerate(shapes)
    ]
    theirs = torchrec.EmbeddingCollection(tables=configs)
    ours = EmbeddingCollection(tables=configs, optimizer=Sgd(learning_rate=0.5))
    ours.load_state_dict(theirs.state_dict())
    assert list(ours.state_dict()) == list(theirs.state_dict())
    batch = kjt(names, rows, min(size for size, _ in shapes), seed=seed)
    if int32:
        batch = KeyedJaggedTensor(names, batch.values(), lengths=batch.lengths().int(), stride=rows)
    out, expected = ours(batch), theirs(batch)
    assert list(out) == list(expected)
    losses = [torch.zeros(()), torch.zeros(())]
    for number, (name, jagged) in enumerate(expected.items()):
        assert torch.equal(out[name].values(), jagged.values())
        assert torch.equal(out[name].lengths(), jagged.lengths())
        weights = torch.randn(jagged.values().shape, generator=torch.Generator().manual_seed(seed + number))
        for which, view in enumerate((out, expected)):
            losses[which] = losses[which] + (view[name].values() * weights).sum()
    for loss in losses:
        loss.backward()
    ours.tables.step()
    assert_same_step(ours, theirs)

"""The views of pooled rows and of both: TorchRec's results, names and state_dict; gradients; encoders; refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchrec
from hypothesis import given, settings
from hypothesis import strategies as st
from torchrec import EmbeddingBagConfig, KeyedJaggedTensor, PoolingType
from torchrec.models.dlrm import DLRM

from embtables import CollisionlessTable, EmbeddingBagCollection, EmbeddingCollection, Feature, FixedTable, Tables
from embtables.errors import ConfigError, DataError
from embtables.ids import make_encoder
from embtables.schema import Adagrad, Adam, Constant, Identity, MultiHash, RowwiseAdagrad, Sgd
from tests.contents import flat, same
from tests.embtables.lookup.collections_for_tests import STORES, assert_same_step, kjt, schema_tables


def bag_configs(pooling: PoolingType = PoolingType.SUM) -> list[EmbeddingBagConfig]:
    shared = {"embedding_dim": 8, "num_embeddings": 12, "pooling": pooling}
    return [
        EmbeddingBagConfig(name="t1", feature_names=["a", "b"], **shared),
        EmbeddingBagConfig(name="t2", feature_names=["b"], **shared),
        EmbeddingBagConfig(name="t3", feature_names=["c"], embedding_dim=4, num_embeddings=12, pooling=pooling),
    ]


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize(
    ("weighted", "pooling"), [(False, PoolingType.SUM), (True, PoolingType.SUM), (False, PoolingType.MEAN)]
)
def test_pooled_results_and_gradients_are_torchrecs(store: Any, weighted: bool, pooling: PoolingType) -> None:
    theirs = torchrec.EmbeddingBagCollection(tables=bag_configs(pooling), is_weighted=weighted)
    ours = EmbeddingBagCollection(
        tables=bag_configs(pooling), is_weighted=weighted, optimizer=Sgd(learning_rate=0.5), row_store=store
    )
    missing = ours.load_state_dict(theirs.state_dict())
    assert not missing.missing_keys
    assert not missing.unexpected_keys
    # A superset of the features, in another order.
    batch_a = kjt(["c", "x", "b", "a"], 5, 12, weighted=weighted)
    batch_b = kjt(["c", "x", "b", "a"], 5, 12, weighted=weighted)
    out_a, out_b = ours(batch_a), theirs(batch_b)
    assert out_a.keys() == out_b.keys() == ours.embedding_names == ["a", "b@t1", "b@t2", "c"]
    assert out_a.length_per_key() == out_b.length_per_key()
    assert torch.allclose(out_a.values(), out_b.values(), atol=1e-6)
    gradient = torch.randn(out_a.values().shape, generator=torch.Generator().manual_seed(1))
    out_a.values().backward(gradient)
    out_b.values().backward(gradient)
    if weighted:
        assert torch.allclose(batch_a.weights().grad, batch_b.weights().grad, atol=1e-5)
    ours.tables.step()
    assert_same_step(ours, theirs)


@pytest.mark.parametrize("store", STORES)
def test_encoders_and_pooling_are_applied_to_raw_ids(store: Any) -> None:
    tables = schema_tables(store)
    batch = kjt(["a", "m", "h", "q"], 6, 2**62)
    pooled = EmbeddingBagCollection.over(tables)(batch).to_dict()
    assert list(pooled) == ["a", "m", "h"]
    weight = {name: tables.weight(name) for name in ("t", "s")}
    for read in tables.features[:3]:
        jagged = batch[read.feature.name].to_dense()
        for row, ids in enumerate(jagged):
            keys = read.encoder.encode(ids.numpy())
            total = weight[read.table.name][torch.from_numpy(keys)].sum(0)
            expected = total / max(len(ids), 1) if read.feature.pooling == "mean" else total
            assert torch.allclose(pooled[read.feature.name][row], expected, atol=1e-6)
    sequence = EmbeddingCollection.over(tables)(batch)["q"]
    keys = make_encoder(MultiHash(num_hashes=2), 30).encode(batch["q"].values().numpy()).reshape(-1, 2)
    assert torch.allclose(sequence.values(), weight["s"][torch.from_numpy(keys)].sum(1), atol=1e-6)


@pytest.mark.parametrize("store", STORES)
def test_gradients_of_several_backwards_and_views_make_one_update(store: Any) -> None:
    split, joined = schema_tables(store), schema_tables(store)
    for tables, batches in (
        (split, [kjt(["a", "m", "h", "q"], 4, 99, seed=1), kjt(["a", "m", "h", "q"], 4, 99, seed=2)]),
        (joined, [kjt(["a", "m", "h", "q"], 4, 99, seed=1), kjt(["a", "m", "h", "q"], 4, 99, seed=2)]),
    ):
        bags, sequences = EmbeddingBagCollection.over(tables), EmbeddingCollection.over(tables)
        losses = [bags(b).values().sum() + sequences(b)["q"].values().sum() for b in batches]
        if tables is split:
            for loss in losses:
                loss.backward()
        else:
            sum(losses, torch.zeros(())).backward()
        tables.step()
    for name in ("t", "s"):
        assert torch.allclose(split.weight(name), joined.weight(name), atol=1e-6)
        assert not torch.equal(split.weight(name), schema_tables(store).weight(name))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("store", STORES)
def test_inference_leaves_everything_as_it_was(store: Any, mode: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = schema_tables(store)
    before = flat(tables)
    pooled, sequence = EmbeddingBagCollection.over(tables), EmbeddingCollection.over(tables)
    batch = kjt(["a", "m", "h", "q"], 4, 99)
    trained = pooled(batch).values().detach()
    for training in ("train_pooled", "train_rows"):
        monkeypatch.setattr(tables.rows, training, None)
    with mode():
        inferred = pooled(batch).values()
        rows = sequence(batch)
    assert torch.equal(inferred, trained)
    assert not inferred.requires_grad
    assert not any(jagged.values().requires_grad for jagged in rows.values())
    tables.step()
    assert same(before, flat(tables))


@pytest.mark.parametrize("store", STORES)
def test_updates_inside_backward_equal_updates_by_step(store: Any) -> None:
    views = [
        EmbeddingBagCollection(tables=bag_configs(), optimizer=Adagrad(learning_rate=0.1), row_store=store, update=mode)
        for mode in ("step", "backward")
    ]
    for seed in range(3):
        for view in views:
            view(kjt(["a", "b", "c"], 5, 12, seed=seed)).values().square().sum().backward()
        views[0].tables.step()
    for name, value in views[0].state_dict().items():
        assert torch.equal(views[1].state_dict()[name], value)


@pytest.mark.parametrize("store", STORES)
def test_state_goes_out_and_in_and_training_goes_on_the_same(store: Any) -> None:
    optimizer = Adam(learning_rate=0.01) if store == "reference" else None
    first, second = schema_tables(store, optimizer), schema_tables(store, optimizer)

    def train(tables: Tables, seeds: range) -> None:
        for seed in seeds:
            EmbeddingBagCollection.over(tables)(kjt(["a", "m", "h", "q"], 9, 99, seed=seed)).values().sum().backward()
            tables.step()

    train(first, range(5))
    second.load([first.content()])
    train(first, range(5, 8))
    train(second, range(5, 8))
    assert same(flat(second), flat(first))


def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(ConfigError, match="feature z: names table 'nope'"):
        Tables(
            [FixedTable(name="t", dim=4, num_rows=5, optimizer=Sgd(learning_rate=1))],
            [Feature(name="z", table="nope")],
            seed=0,
        )
    with pytest.raises(ConfigError, match="no unpooled feature"):
        EmbeddingCollection(tables=[])  # no features at all
        EmbeddingCollection.over(Tables([], [], seed=0))
    view = EmbeddingBagCollection(tables=bag_configs())
    with pytest.raises(ConfigError, match="feature c: is missing from the batch, which has: a, b"):
        view(kjt(["a", "b"], 3, 12))
    with pytest.raises(DataError, match="feature a: id"):
        view(KeyedJaggedTensor(["a", "b", "c"], torch.tensor([99]), lengths=torch.tensor([1, 0, 0])))
    with pytest.raises(ConfigError, match="received device cuda"):
        EmbeddingBagCollection(tables=bag_configs(), device="cuda")
    with pytest.raises(ConfigError, match="needs ids with weights"):
        EmbeddingBagCollection(tables=bag_configs(), is_weighted=True)(kjt(["a", "b", "c"], 3, 12))


def test_stats_count_rows_and_bytes() -> None:
    table = FixedTable(
        name="t", dim=4, num_rows=50, optimizer=RowwiseAdagrad(learning_rate=1), initializer=Constant(value=2)
    )
    for store in STORES:
        tables = Tables([table], [Feature(name="a", table="t")], seed=0, row_store=store)  # type: ignore[arg-type]
        stats = tables.stats()["t"]
        assert (stats.rows, stats.dim) == (50, 4)
        assert {k: v for k, v in stats.bytes_by_column.items() if k != "bookkeeping"} == {"weight": 800, "sum": 200}
        assert torch.equal(tables.weight("t"), torch.full((50, 4), 2.0))


@pytest.mark.parametrize("store", STORES)
def test_a_torchrec_model_trains_on_our_collection_unchanged(store: Any) -> None:
    configs = [
        EmbeddingBagConfig(name=f"t{i}", embedding_dim=8, num_embeddings=40, feature_names=[f"f{i}"]) for i in range(3)
    ]
    torch.manual_seed(0)
    ours = EmbeddingBagCollection(tables=configs, optimizer=Adagrad(learning_rate=0.1), row_store=store)
    model = DLRM(ours, dense_in_features=4, dense_arch_layer_sizes=[16, 8], over_arch_layer_sizes=[16, 1])
    dense_optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    batch, dense = kjt(["f0", "f1", "f2"], 64, 40), torch.randn(64, 4)
    labels = (batch["f0"].lengths() % 2).float()
    losses = []
    for _ in range(40):
        dense_optimizer.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(model(dense, batch).squeeze(1), labels)
        loss.backward()
        dense_optimizer.step()
        ours.tables.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.3 * losses[0]


SHAPES = st.lists(
    st.tuples(st.sampled_from([1, 4, 8, 12, 64]), st.integers(1, 30), st.integers(1, 3)), min_size=1, max_size=4
)


@settings(deadline=None, max_examples=40)
@given(
    shapes=SHAPES,
    rows=st.integers(1, 9),  # TorchRec itself fails on a batch without rows
    weighted=st.booleans(),
    mean=st.booleans(),
    int32=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_random_schemas_agree_with_torchrec(
    shapes: list[tuple[int, int, int]], rows: int, weighted: bool, mean: bool, int32: bool, seed: int
) -> None:
    """Tables of any dimension, features shared between tables, empty lists, lengths of both types."""
    pooling = PoolingType.MEAN if mean and not weighted else PoolingType.SUM
    names = [f"f{i}" for i in range(4)]
    configs = [
        EmbeddingBagConfig(
            name=f"t{i}", embedding_dim=dim, num_embeddings=size, feature_names=names[:readers], pooling=pooling
        )
        for i, (dim, size, readers) in enumerate(shapes)
    ]
    theirs = torchrec.EmbeddingBagCollection(tables=configs, is_weighted=weighted)
    ours = EmbeddingBagCollection(tables=configs, is_weighted=weighted, optimizer=Sgd(learning_rate=0.5))
    ours.load_state_dict(theirs.state_dict())
    assert list(ours.state_dict()) == list(theirs.state_dict())
    vocabulary = min(size for _, size, _ in shapes)
    batch = kjt(names, rows, vocabulary, weighted=weighted, seed=seed)
    if int32:
        batch = KeyedJaggedTensor(
            names, batch.values(), lengths=batch.lengths().int(), weights=batch.weights_or_none(), stride=rows
        )
    out, expected = ours(batch), theirs(batch)
    assert out.keys() == expected.keys()
    assert torch.allclose(out.values(), expected.values(), atol=1e-5)
    assert out.values().shape == expected.values().shape
    gradient = torch.randn(out.values().shape, generator=torch.Generator().manual_seed(seed))
    expected.values().backward(gradient)
    their_weights = batch.weights().grad.clone() if weighted else None
    if weighted:
        batch.weights().grad.zero_()
    out.values().backward(gradient)
    ours.tables.step()
    if their_weights is not None:
        assert torch.allclose(batch.weights().grad, their_weights, atol=1e-4)
    assert_same_step(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("store", ["host", "reference"])
@pytest.mark.parametrize("kind", ["fixed", "collisionless"])
def test_non_finite_gradients_end_training_where_asked(store: Any, kind: str) -> None:
    common: dict[str, Any] = {"name": "t", "dim": 4, "optimizer": Sgd(learning_rate=1), "non_finite_gradients": "raise"}
    table = FixedTable(num_rows=9, **common) if kind == "fixed" else CollisionlessTable(**common)
    tables = Tables([table], [Feature(name="a", table="t", encoder=Identity())], seed=0, row_store=store)
    view = EmbeddingBagCollection.over(tables)
    batch = KeyedJaggedTensor(["a"], torch.tensor([3, 5]), lengths=torch.tensor([1, 1]))
    out = view(batch).values()
    (out * torch.tensor([[float("nan")], [1.0]])).sum().backward()
    with pytest.raises(DataError, match="table t: gradients of 1 rows were not finite"):
        tables.step()
    view(batch).values().sum().backward()
    tables.step()

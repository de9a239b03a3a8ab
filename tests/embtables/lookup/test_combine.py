"""Rows of an id that are summed, averaged, concatenated or multiplied: views against plain torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchrec import KeyedJaggedTensor

from embtables import CollisionlessTable, EmbeddingBagCollection, EmbeddingCollection, Feature, FixedTable, Tables
from embtables.ids import Combine
from embtables.schema import Constant, EncoderConfig, MultiHash, Normal, Sgd
from tests.embtables.ids.encoders_for_tests import Digits, registered

COMBINES = get_args(Combine)
BASE, DIM, RATE = 7, 4, 0.25


@pytest.fixture(autouse=True, scope="module")
def _digits() -> Iterator[None]:
    with registered():
        yield


def made(combines: list[Combine], num_digits: int, store: Any, pooling: Any, **options: Any) -> Tables:
    """A table read by a feature of each way to combine, of digits and of hashes, and by one that is hashed twice."""
    rows = BASE * num_digits
    table = FixedTable(
        name="t", dim=DIM, num_rows=rows, optimizer=Sgd(learning_rate=RATE), initializer=Normal(std=1.0), **options
    )
    encoders: list[EncoderConfig] = [Digits(base=BASE, num_digits=num_digits, combine=how) for how in combines]
    encoders += [MultiHash(num_hashes=3, combine=how) for how in combines]
    features = [
        Feature(name=f"f{n}", table="t", encoder=e, pooling=pooling, weights_column="w") for n, e in enumerate(encoders)
    ]
    features.insert(1, Feature(name="h", table="t", encoder=MultiHash(), pooling=pooling, weights_column="w"))
    return Tables([table], features, seed=3, row_store=store)


def batch_of(tables: Tables, lengths: list[int], num_ids: int, seed: int) -> KeyedJaggedTensor:
    """Lists of `lengths`, all features alike but for their order; with per-id weights."""
    rng = np.random.default_rng(seed)
    names = [read.feature.name for read in tables.features]
    of_all = np.concatenate([rng.permutation(np.array(lengths, np.int64)) for _ in names])
    ids, weights = rng.integers(0, num_ids, of_all.sum()), rng.standard_normal(of_all.sum()).astype(np.float32)
    return KeyedJaggedTensor(
        names,
        torch.from_numpy(ids),
        weights=torch.from_numpy(weights).requires_grad_(),
        lengths=torch.from_numpy(of_all),
        stride=len(lengths),
    )


def vectors(weight: Tensor, read: Any, ids: Tensor) -> Tensor:
    """The oracle of one feature's ids, one by one."""
    found = []
    for one in ids:
        rows = weight[torch.from_numpy(read.encoder.encode(one[None].numpy()))]
        how = read.encoder.combine
        if how == "concat":
            found.append(torch.cat(list(rows)))
        else:
            found.append({"sum": rows.sum(0), "mean": rows.mean(0), "product": rows.prod(0)}[how])
    return torch.stack(found) if found else torch.zeros(0, read.dim)


def assert_near(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=1e-4)


@settings(deadline=None, max_examples=60)
@given(
    combines=st.lists(st.sampled_from(COMBINES), min_size=1, max_size=4),
    num_digits=st.integers(1, 3),
    store=st.sampled_from(["host", "reference", "fbgemm"]),
    pooling=st.sampled_from(["sum", "mean"]),
    lengths=st.lists(st.integers(0, 3), max_size=5),
    trainable=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_pooled_vectors_and_their_gradients_are_those_of_plain_torch(
    combines: list[Combine],
    num_digits: int,
    store: Any,
    pooling: Any,
    lengths: list[int],
    trainable: bool,
    seed: int,
) -> None:
    if store == "fbgemm" and not (lengths and trainable):
        store = "host"
    tables = made(combines, num_digits, store, pooling, trainable=trainable)
    batch = batch_of(tables, lengths, BASE**num_digits, seed)
    view = EmbeddingBagCollection.over(tables)
    weight = tables.weight("t").requires_grad_()
    theirs = batch.weights().detach().clone().requires_grad_()
    bounds = np.concatenate([[0], np.cumsum(batch.lengths().numpy())])
    columns = []
    for f, read in enumerate(tables.features):
        bags = []
        for b in range(len(lengths)):
            own = slice(bounds[f * len(lengths) + b], bounds[f * len(lengths) + b + 1])
            total = (vectors(weight, read, batch.values()[own]) * theirs[own, None]).sum(0)
            bags.append(total / max(own.stop - own.start, 1) if pooling == "mean" else total)
        columns.append(torch.stack(bags) if bags else torch.zeros(0, read.dim))
    expected = torch.cat(columns, dim=1)
    out = view(batch)
    assert out.length_per_key() == [
        DIM * (s.encoder.num_keys if s.encoder.combine == "concat" else 1) for s in tables.features
    ]
    assert_near(out.values().detach(), expected.detach())

    gradient = torch.from_numpy(np.random.default_rng(seed).standard_normal(expected.shape).astype(np.float32))
    out.values().backward(gradient)
    if expected.requires_grad:
        (expected * gradient).sum().backward()
    ours = batch.weights().grad
    assert ours is not None
    assert_near(ours, torch.zeros_like(theirs) if theirs.grad is None else theirs.grad)
    tables.step()
    step = weight.grad if trainable and weight.grad is not None else torch.zeros(weight.shape)
    assert_near(tables.weight("t"), weight.detach() - RATE * step)
    with torch.no_grad():
        again = EmbeddingBagCollection.over(tables).eval()(batch).values()
    assert again.shape == expected.shape


@settings(deadline=None, max_examples=40)
@given(
    combines=st.lists(st.sampled_from(COMBINES), min_size=1, max_size=4),
    num_digits=st.integers(1, 3),
    store=st.sampled_from(["host", "reference"]),
    lengths=st.lists(st.integers(0, 3), min_size=1, max_size=5),
    seed=st.integers(0, 1000),
)
def test_sequences_and_their_gradients_are_those_of_plain_torch(
    combines: list[Combine], num_digits: int, store: Any, lengths: list[int], seed: int
) -> None:
    tables = made(combines, num_digits, store, "none")
    batch = batch_of(tables, lengths, BASE**num_digits, seed)
    weight = tables.weight("t").requires_grad_()
    found = EmbeddingCollection.over(tables)(batch)
    rng = np.random.default_rng(seed)
    ours, theirs = torch.zeros(()), torch.zeros(())
    for read in tables.features:
        name = read.feature.name
        values, expected = found[name].values(), vectors(weight, read, batch[name].values())
        assert_near(values.detach(), expected.detach())
        assert torch.equal(tables.get("t", batch[name].values(), feature=name), values.detach())
        gradient = torch.from_numpy(rng.standard_normal(expected.shape).astype(np.float32))
        ours, theirs = ours + (values * gradient).sum(), theirs + (expected * gradient).sum()
    ours.backward()
    if theirs.requires_grad:
        theirs.backward()
    tables.step()
    step = torch.zeros(weight.shape) if weight.grad is None else weight.grad
    assert_near(tables.weight("t"), weight.detach() - RATE * step)


@pytest.mark.parametrize("store", ["host", "reference"])
@pytest.mark.parametrize("pooling", ["sum", "none"])
def test_a_row_of_zeros_in_a_product_learns(store: Any, pooling: Any) -> None:
    """d/dw of 0 * 3 is 3 for the row that is 0, and 0 for the other."""
    table = CollisionlessTable(name="t", dim=1, optimizer=Sgd(learning_rate=1.0), initializer=Constant(value=3.0))
    feature = Feature(name="f", table="t", encoder=Digits(base=10, combine="product"), pooling=pooling)
    plain = Feature(name="p", table="t", encoder={"kind": "identity"})
    tables = Tables([table], [feature, plain], seed=0, row_store=store)
    tables.set("t", torch.tensor([2, 14]), torch.tensor([[0.0], [3.0]]), feature="p")
    batch = KeyedJaggedTensor(["f", "p"], torch.tensor([42]), lengths=torch.tensor([1, 0]))
    kind = EmbeddingBagCollection if pooling == "sum" else EmbeddingCollection
    out = kind.over(tables)(batch)["f"]
    values = out if isinstance(out, Tensor) else out.values()
    assert values.tolist() == [[0.0]]
    values.sum().backward()
    tables.step()
    assert tables.get("t", torch.tensor([2, 14]), feature="p").tolist() == [[-3.0], [3.0]]


def test_first_order_weights_of_an_id_are_summed_whatever_its_rows_do() -> None:
    table = FixedTable(name="linear.t", dim=1, num_rows=20, optimizer=Sgd(learning_rate=1.0))
    for how in COMBINES:
        tables = Tables([table], [Feature(name="f", table="linear.t", encoder=Digits(combine=how))], seed=0)
        view = EmbeddingBagCollection.over(tables)
        assert view.embedding_dims == [1]
        out = view(KeyedJaggedTensor(["f"], torch.tensor([42]), lengths=torch.tensor([1]))).values()
        assert_near(out.detach(), tables.weight("linear.t")[[2, 14]].sum(0, keepdim=True))

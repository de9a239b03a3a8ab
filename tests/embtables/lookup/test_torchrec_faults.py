"""What TorchRec's own tests found to be wrong in silence: each is right now, or a typed error."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torchrec
from torch import Tensor
from torchrec import EmbeddingBagConfig, EmbeddingConfig, KeyedJaggedTensor, PoolingType
from torchrec.modules.embedding_configs import DataType

from embtables import CollisionlessTable, EmbeddingBagCollection, EmbeddingCollection, Feature, FixedTable, Tables
from embtables.errors import ConfigError, DataError, StateError
from embtables.inputs.batch import JaggedIds
from embtables.lookup.views import PooledView
from embtables.schema import Adagrad, Identity, MinCount, Normal, Sgd
from embtables.tables import waiting
from embtables.warm_start import from_state_dict

LEARNS = Adagrad(learning_rate=0.1)
IDS = torch.tensor([5, -3, 2**40, 8])


def kept(store: Any = "host", **changes: Any) -> Tables:
    config = CollisionlessTable(name="t", dim=4, optimizer=LEARNS, initializer=Normal(std=1.0), **changes)
    return Tables([config], [Feature(name="f", table="t", encoder=Identity())], seed=1, row_store=store)


def batch(ids: Tensor, feature: str = "f") -> KeyedJaggedTensor:
    return KeyedJaggedTensor([feature], ids, lengths=torch.ones(len(ids), dtype=torch.int64))


def learn(tables: Tables, ids: Tensor) -> None:
    EmbeddingBagCollection.over(tables)(batch(ids)).values().sum().backward()
    tables.step()


@pytest.mark.parametrize("store", ["host", "reference"])
def test_a_collisionless_state_dict_gives_each_id_its_row_in_any_order(store: Any) -> None:
    tables = kept(store)
    learn(tables, IDS)
    rows = tables.get("t", IDS)
    state = EmbeddingBagCollection.over(tables).state_dict()
    assert list(state) == ["embedding_bags.t.weight", "embedding_bags.t.keys"]
    others = kept(store)
    learn(others, torch.tensor([1, 2, 3, 8]))  # as many rows, of other ids: they go
    order = torch.tensor([2, 0, 3, 1])
    shuffled = {name: value[order] for name, value in state.items()}
    missing = EmbeddingBagCollection.over(others).load_state_dict(shuffled)
    assert (missing.missing_keys, missing.unexpected_keys) == ([], [])
    assert torch.equal(others.get("t", IDS), rows)
    assert others.keys("t").tolist() == sorted(IDS.tolist())  # type: ignore[union-attr]
    assert torch.equal(others.get("t", torch.tensor([1, 2, 3])), torch.zeros(3, 4))


def test_it_is_right_in_another_process(tmp_path: Path) -> None:
    tables = kept()
    learn(tables, IDS)
    safetensors.torch.save_file(EmbeddingBagCollection.over(tables).state_dict(), tmp_path / "state.safetensors")
    code = f"""
import safetensors.torch, torch
from embtables import CollisionlessTable, EmbeddingBagCollection, Feature, Sgd, Tables
config = CollisionlessTable(name="t", dim=4, optimizer=Sgd(learning_rate=1.0))
tables = Tables([config], [Feature(name="f", table="t", encoder={{"kind": "identity"}})], seed=9)
state = safetensors.torch.load_file({str(tmp_path / "state.safetensors")!r})
EmbeddingBagCollection.over(tables).load_state_dict(state)
print(tables.get("t", {IDS.tolist()}).tolist())
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert torch.equal(torch.tensor(eval(found.stdout)), tables.get("t", IDS))


def test_a_collisionless_table_takes_no_rows_without_keys_and_a_fixed_one_none_with() -> None:
    tables = kept()
    learn(tables, IDS)
    state = EmbeddingBagCollection.over(tables).state_dict()
    before = tables.get("t", IDS)
    with pytest.raises(StateError, match=r"t\.weight: has no keys \(embedding_bags\.t\.keys\).*warm_start"):
        EmbeddingBagCollection.over(tables).load_state_dict({"embedding_bags.t.weight": torch.zeros(4, 4)})
    assert torch.equal(tables.get("t", IDS), before)
    result = EmbeddingBagCollection.over(tables).load_state_dict({}, strict=False)
    assert result.missing_keys == ["embedding_bags.t.weight", "embedding_bags.t.keys"]
    fixed = FixedTable(name="t", dim=4, num_rows=4, optimizer=LEARNS)
    rows = Tables([fixed], [Feature(name="f", table="t")], seed=0)
    with pytest.raises(StateError, match="is of a collisionless table, and the table here is fixed"):
        EmbeddingBagCollection.over(rows).load_state_dict(state, strict=False)
    with pytest.raises(DataError, match="has keys, of a collisionless table; table 't' is fixed here"):
        from_state_dict(rows, state)


def test_a_warm_start_from_a_collisionless_state_dict_goes_by_its_keys() -> None:
    tables, others = kept(), kept()
    learn(tables, IDS)
    from_state_dict(others, EmbeddingBagCollection.over(tables).state_dict())
    assert torch.equal(others.get("t", IDS), tables.get("t", IDS))
    assert torch.equal(others.get("t", [0, 1, 2, 3]), torch.zeros(4, 4))  # type: ignore[arg-type]


def configs(**changes: Any) -> list[EmbeddingBagConfig]:
    common = {"embedding_dim": 4, "num_embeddings": 10, **changes}
    return [EmbeddingBagConfig(name=n, feature_names=[f"f_{n}"], **common) for n in ("a", "b")]


def deduplicated(*, weighted: bool = False) -> KeyedJaggedTensor:
    """Two rows of f_a and three of f_b, which stand for four."""
    values = torch.tensor([1, 2, 3, 4, 5, 6, 7])
    return KeyedJaggedTensor(
        ["f_a", "f_b"],
        values,
        weights=torch.rand(7, generator=torch.Generator().manual_seed(0)).requires_grad_() if weighted else None,
        lengths=torch.tensor([2, 1, 0, 3, 1]),
        stride_per_key_per_rank=[[2], [3]],
        inverse_indices=(["f_a", "f_b"], torch.tensor([[0, 1, 1, 0], [2, 0, 1, 1]])),
    )


@pytest.mark.parametrize("weighted", [False, True])
def test_inverse_indices_are_torchrecs(weighted: bool) -> None:
    theirs = torchrec.EmbeddingBagCollection(tables=configs(), is_weighted=weighted)
    ours = EmbeddingBagCollection(tables=configs(), is_weighted=weighted, optimizer=Sgd(learning_rate=0.5))
    ours.load_state_dict(theirs.state_dict())
    one, other = deduplicated(weighted=weighted), deduplicated(weighted=weighted)
    out, expected = ours(one).values(), theirs(other).values()
    assert out.shape == (4, 8)
    assert torch.allclose(out, expected, atol=1e-6)
    gradient = torch.randn(4, 8, generator=torch.Generator().manual_seed(1))
    out.backward(gradient)
    expected.backward(gradient)
    ours.tables.step()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.sub_(0.5 * parameter.grad)
    for name, value in theirs.state_dict().items():
        assert torch.allclose(ours.state_dict()[name], value, atol=1e-6)
    if weighted:
        assert torch.allclose(one.weights().grad, other.weights().grad, atol=1e-6)


def test_other_batches_of_variable_rows_are_refused() -> None:
    ours = EmbeddingBagCollection(tables=configs())
    varies = KeyedJaggedTensor(
        ["f_a", "f_b"], torch.arange(5), lengths=torch.ones(5).long(), stride_per_key_per_rank=[[2], [3]]
    )
    with pytest.raises(DataError, match="features with different numbers of rows"):
        ours(varies)
    sequences = EmbeddingCollection(
        tables=[EmbeddingConfig(name="a", embedding_dim=4, num_embeddings=10, feature_names=["f_a"])]
    )
    with pytest.raises(DataError, match="has inverse indices"):
        sequences(deduplicated())
    beyond = deduplicated()
    beyond._inverse_indices = (["f_a", "f_b"], torch.tensor([[0, 1, 2, 0], [2, 0, 1, 1]]))
    with pytest.raises(DataError, match=r"feature f_a: has inverse indices 0\.\.2, and it has 2 rows"):
        ours(beyond)
    beyond._inverse_indices = (["f_a"], torch.tensor([[0, 1, 1, 0]]))
    with pytest.raises(DataError, match="feature f_b: has no inverse indices"):
        ours(beyond)
    with pytest.raises(DataError, match=r"the KeyedJaggedTensor cannot be read|argument lengths"):
        ours(KeyedJaggedTensor(["f_a", "f_b"], torch.arange(5), lengths=torch.ones(5).long()))


REFUSED: dict[str, tuple[Any, str]] = {
    "two tables of one name": (configs()[:1] * 2, "table a: is the name of 2 tables"),
    "half precision": (configs(data_type=DataType.FP16), "table a: data_type must be FP32"),
    "no pooling": (configs(pooling=PoolingType.NONE), "table a: pooling must be SUM or MEAN"),
    "pruned": (configs(num_embeddings_post_pruning=5), "table a: num_embeddings_post_pruning"),
    "a virtual table": (configs(use_virtual_table=True), r"table a: virtual tables .*CollisionlessTable"),
    "a feature twice": (
        [EmbeddingBagConfig(name="a", embedding_dim=4, num_embeddings=10, feature_names=["f", "f"])],
        "feature f: reads table 'a' 2 times",
    ),
    "bounds the wrong way": (configs(weight_init_min=1.0, weight_init_max=0.0), "table a: "),
    "no dimension": (configs(embedding_dim=0), "table a: FixedTable.dim"),
    "another configuration": (
        [EmbeddingConfig(name="a", embedding_dim=4, num_embeddings=10, feature_names=["f"])],
        "argument tables: must be a list of EmbeddingBagConfig, received a EmbeddingConfig at 0",
    ),
    "a configuration alone": (configs()[0], "argument tables: must be a list of EmbeddingBagConfig"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_configuration_that_asks_for_what_is_not_here_is_refused(case: str) -> None:
    given, text = REFUSED[case]
    with pytest.raises(ConfigError, match=text):
        EmbeddingBagCollection(tables=given)


def test_init_fn_makes_the_rows() -> None:
    made = configs(init_fn=lambda weight: torch.nn.init.constant_(weight, 3.0))
    ours = EmbeddingBagCollection(tables=made)
    assert torch.equal(ours.tables.weight("b"), torch.full((10, 4), 3.0))
    bounded = EmbeddingBagCollection(tables=configs(weight_init_min=0.5, weight_init_max=0.75))
    rows = bounded.tables.weight("a")
    assert 0.5 <= float(rows.min()) < float(rows.max()) <= 0.75


@pytest.mark.parametrize("kind", ["bags", "sequences"])
def test_a_backward_in_eval_mode_says_that_no_row_would_learn(kind: str) -> None:
    feature = Feature(name="f", table="t", encoder=Identity(), pooling="sum" if kind == "bags" else "none")
    config = CollisionlessTable(name="t", dim=4, optimizer=LEARNS, admission=MinCount(count=2))
    tables = Tables([config], [feature], seed=1)
    view: Any = EmbeddingBagCollection.over(tables) if kind == "bags" else EmbeddingCollection.over(tables)
    view.eval()
    out = view(batch(IDS)).values() if kind == "bags" else view(batch(IDS))["f"].values()
    scale = torch.ones(4, requires_grad=True)
    with pytest.raises(StateError, match="looked up in eval mode"):
        (out * scale).sum().backward()
    (found,) = torch.autograd.grad((out * scale).sum(), scale)  # what does not ask the rows goes on
    assert torch.equal(found, out.detach().sum(dim=0))
    tables.step()
    assert len(tables.keys("t")) == 0  # type: ignore[arg-type]
    assert len(tables.table_content("t").waiting) == 0
    view.train()
    found = view(batch(IDS))
    (found.values() if kind == "bags" else found["f"].values()).sum().backward()
    tables.step()
    assert len(tables.table_content("t").waiting) == 4


def test_frozen_tables_may_be_looked_up_in_eval_mode() -> None:
    view = EmbeddingBagCollection.over(kept(trainable=False)).eval()
    assert not view(batch(IDS)).values().requires_grad


def test_a_loop_without_step_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "MOST_WAITING", 3)
    tables = kept()
    view = PooledView(tables)
    ids = JaggedIds.of({"f": [[1]]})

    def backwards(times: int) -> None:
        for _ in range(times):
            view(ids).sum().backward()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for forget in (tables.step, tables.discard):
            backwards(3)
            forget()
    with pytest.warns(UserWarning, match=r"row gradients of 4 lookups wait for tables\.step") as caught:
        backwards(20)
    assert len(caught) == 1
    tables.step()

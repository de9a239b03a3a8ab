"""Models against their formulas written out, over torchrec's own collections."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchrec import EmbeddingBagCollection, EmbeddingBagConfig, PoolingType

from embtables.errors import ConfigError
from embtables.inputs.batch import JaggedIds
from embtables.lookup.collections import keyed_jagged_tensor
from embtables.models.kinds.dcnv2 import DcnV2Config
from embtables.models.kinds.deepfm import DeepFmConfig
from embtables.models.kinds.fm import FM, FmConfig
from embtables.models.kinds.lr import LR, LrConfig
from embtables.models.losses import log_odds_shift, weighted_bce_with_logits
from embtables.models.registry import ModelInputs, ModelOptions, spec_of

FEATURES = ("a", "b", "c")


class Bags(nn.Module):
    """torchrec's collection as a view: what models take is a protocol."""

    def __init__(self, dims: tuple[int, ...]) -> None:
        super().__init__()
        self.collection = EmbeddingBagCollection(
            tables=[
                EmbeddingBagConfig(
                    name=f"t_{f}", num_embeddings=20, embedding_dim=d, feature_names=[f], pooling=PoolingType.SUM
                )
                for f, d in zip(FEATURES, dims, strict=True)
            ]
        )
        self.embedding_names = list(FEATURES)
        self.embedding_dims = list(dims)

    def forward(self, ids: JaggedIds) -> Tensor:
        values: Tensor = self.collection(keyed_jagged_tensor(ids)).values()
        return values

    def by_name(self, ids: JaggedIds) -> dict[str, Tensor]:
        return dict(zip(self.embedding_names, self(ids).split(self.embedding_dims, dim=1), strict=True))


class Both(nn.Module):
    """The same with first-order weights beside."""

    def __init__(self, pooled: Bags, linear: Bags) -> None:
        super().__init__()
        self.pooled, self.linear = pooled, linear
        self.embedding_names, self.embedding_dims = pooled.embedding_names, pooled.embedding_dims

    def forward(self, ids: JaggedIds) -> tuple[Tensor, Tensor]:
        return self.pooled(ids), self.linear(ids)


def batch(rows: int = 6) -> tuple[JaggedIds, Tensor]:
    generator = torch.Generator().manual_seed(3)
    lengths = torch.randint(0, 4, (len(FEATURES) * rows,), generator=generator)
    values = torch.randint(0, 20, (int(lengths.sum()),), generator=generator)
    return JaggedIds(FEATURES, values, lengths, rows), torch.randn(rows, 2, generator=generator)


def build(config: ModelOptions, labels: int = 1, dense: int = 2) -> torch.nn.Module:
    torch.manual_seed(0)
    takes = spec_of(config).takes
    pooled = Bags((4, 4, 4)) if "pooled" in takes else None
    linear = Bags((1, 1, 1)) if "first_order" in takes else None
    both = None if pooled is None or linear is None else Both(pooled, linear)
    return spec_of(config).build(config, ModelInputs(pooled, None, linear, dense, labels, both))


ALL: list[ModelOptions] = [
    LrConfig(),
    FmConfig(),
    DeepFmConfig(hidden_sizes=(8, 8)),
    DcnV2Config(hidden_sizes=(8,), num_cross_layers=2),
    DcnV2Config(hidden_sizes=(8,), structure="stacked"),
]


@pytest.mark.parametrize("config", ALL, ids=lambda c: c.kind)
@pytest.mark.parametrize("labels", [1, 3])
@pytest.mark.parametrize("dense", [0, 2])
def test_logits_have_a_column_a_label_and_every_parameter_gets_a_gradient(
    config: ModelOptions, labels: int, dense: int
) -> None:
    model = build(config, labels, dense)
    ids, values = batch()
    logits = model(ids, values[:, :dense])
    assert logits.shape == (6, labels)
    weighted_bce_with_logits(logits, torch.ones(6, labels), None).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("config", ALL, ids=lambda c: c.kind)
def test_the_same_seed_builds_the_same_model(config: ModelOptions) -> None:
    ids, dense = batch()
    assert torch.equal(build(config)(ids, dense), build(config)(ids, dense))


def test_fm_is_the_sum_over_pairs() -> None:
    model = build(FmConfig())
    ids, dense = batch()
    pooled = model.embeddings.pooled.by_name(ids)
    expected = model.first_order(model.embeddings.linear(ids), dense)
    for i, a in enumerate(FEATURES):
        for b in FEATURES[i + 1 :]:
            expected = expected + (pooled[a] * pooled[b]).sum(1, keepdim=True)
    assert torch.allclose(model(ids, dense), expected, atol=1e-6)


def test_lr_is_bias_plus_weights() -> None:
    model = build(LrConfig())
    with torch.no_grad():
        model.first_order.bias.fill_(0.5)
        model.first_order.dense.weight.copy_(torch.tensor([[2.0, -1.0]]))
    ids, dense = batch()
    pooled = model.linear.by_name(ids)
    expected = 0.5 + sum(pooled[f] for f in FEATURES) + 2.0 * dense[:, :1] - dense[:, 1:]
    assert torch.allclose(model(ids, dense), expected, atol=1e-6)


@pytest.mark.parametrize("structure", ["parallel", "stacked"])
def test_dcnv2_follows_its_equation(structure: str) -> None:
    model = build(DcnV2Config(hidden_sizes=(8,), num_cross_layers=2, structure=structure))
    ids, dense = batch()
    x0 = torch.cat([model.embeddings(ids), dense], 1)
    x = x0
    for layer in model.cross.layers:
        x = x0 * (x @ layer.weight.T + layer.bias) + x
    deep_in = x0 if structure == "parallel" else x
    first = model.deep.net[0]
    hidden = torch.relu(deep_in @ first.weight.T + first.bias)
    expected = hidden @ model.out_deep.weight.T + model.out_deep.bias
    if structure == "parallel":
        expected = expected + x @ model.out_cross.weight.T
    assert torch.allclose(model(ids, dense), expected, atol=1e-5)


def test_unequal_dimensions_are_refused_with_the_features() -> None:
    with pytest.raises(ConfigError, match="'a' and 8 for 'b'"):
        FM.build(FmConfig(), ModelInputs(None, None, None, 0, 1, Both(Bags((4, 8, 4)), Bags((1, 1, 1)))))
    with pytest.raises(ConfigError, match="received 4 for feature 'b'"):
        LR.build(LrConfig(), ModelInputs(None, None, Bags((1, 4, 1)), 0, 1))


def test_the_loss_is_the_weighted_mean_over_rows() -> None:
    logits, labels = torch.tensor([[0.3], [-1.0]]), torch.tensor([[1.0], [0.0]])
    each = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="none").squeeze(1)
    assert torch.isclose(
        weighted_bce_with_logits(logits, labels, torch.tensor([3.0, 1.0])), (3 * each[0] + each[1]) / 4
    )
    assert weighted_bce_with_logits(logits[:0], labels[:0], None) == 0.0


def test_the_log_odds_shift_undoes_down_sampling_of_negatives() -> None:
    true_rate, kept = 0.02, 0.1
    sampled = true_rate / (true_rate + (1 - true_rate) * kept)
    logit = torch.tensor(np.log(sampled / (1 - sampled)))
    assert torch.sigmoid(log_odds_shift(logit, kept)).item() == pytest.approx(true_rate, rel=1e-6)

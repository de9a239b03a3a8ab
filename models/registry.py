"""`MODELS`: the one table of CTR models, and how a configuration becomes one."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from embtables.models.config import DcnV2Config, DeepFmConfig, ModelConfig
from embtables.models.dcnv2 import DcnV2
from embtables.models.deepfm import DeepFm
from embtables.models.fm import FactorizationMachine
from embtables.models.lr import LogisticRegression
from embtables.models.protocols import PooledCollection

Builder = Callable[[ModelConfig, PooledCollection | None, PooledCollection | None, int, int], nn.Module]


def _lr(
    c: ModelConfig, e: PooledCollection | None, linear: PooledCollection | None, dense: int, labels: int
) -> nn.Module:
    assert linear is not None
    return LogisticRegression(linear, dense, labels)


def _fm(
    c: ModelConfig, e: PooledCollection | None, linear: PooledCollection | None, dense: int, labels: int
) -> nn.Module:
    assert e is not None
    assert linear is not None
    return FactorizationMachine(e, linear, dense, labels)


def _deepfm(
    c: ModelConfig, e: PooledCollection | None, linear: PooledCollection | None, dense: int, labels: int
) -> nn.Module:
    assert isinstance(c, DeepFmConfig)
    assert e is not None
    assert linear is not None
    return DeepFm(c, e, linear, dense, labels)


def _dcnv2(
    c: ModelConfig, e: PooledCollection | None, linear: PooledCollection | None, dense: int, labels: int
) -> nn.Module:
    assert isinstance(c, DcnV2Config)
    assert e is not None
    return DcnV2(c, e, dense, labels)


MODELS: dict[str, Builder] = {"lr": _lr, "fm": _fm, "deepfm": _deepfm, "dcnv2": _dcnv2}
_WITH_LINEAR = frozenset({"lr", "fm", "deepfm"})
_WITH_EMBEDDINGS = frozenset({"fm", "deepfm", "dcnv2"})


def needs_linear(config: ModelConfig) -> bool:
    """Whether the model takes first-order weights (a collection of dimension 1)."""
    return config.kind in _WITH_LINEAR


def needs_embeddings(config: ModelConfig) -> bool:
    """Whether the model takes embeddings."""
    return config.kind in _WITH_EMBEDDINGS


def build_model(
    config: ModelConfig,
    *,
    embeddings: PooledCollection | None,
    linear: PooledCollection | None,
    num_dense: int,
    num_labels: int,
) -> nn.Module:
    """The configured model over its collections; what a model does not need is None. Seeded by torch's generator."""
    return MODELS[config.kind](config, embeddings, linear, num_dense, num_labels)

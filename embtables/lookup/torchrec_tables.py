"""Tables of TorchRec's configurations: ids are row indices. Options that would change results are refused."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import torch
from torchrec.modules.embedding_configs import DataType, EmbeddingBagConfig, PoolingType

from embtables.errors import ConfigError
from embtables.given import need_all
from embtables.schema import Feature, FixedTable, Identity, Optimizer, RowwiseAdagrad, Uniform
from embtables.tables.row_store import RowStoreName
from embtables.tables.table_set import Tables


def tables_of(
    configs: Sequence[Any],
    kind: type,
    device: Any,
    optimizer: Optimizer | None,
    seed: int,
    row_store: RowStoreName,
) -> Tables:
    """Tables of EmbeddingBagConfigs or EmbeddingConfigs.

    Raises:
        ConfigError: a configuration is of another kind, two have one name, or one asks for what is not here.
    """
    _refuse_device(device)
    need_all(configs, kind, "tables", kind.__name__)
    for config in configs:
        _refuse_options(config)
    learns = optimizer if optimizer is not None else RowwiseAdagrad(learning_rate=0.01)
    tables, features = [], []
    for config in configs:
        try:
            tables.append(_table_of(config, learns))
            mode = _pooling_of(config)
            features += [
                Feature(name=name, table=config.name, encoder=Identity(), pooling=mode) for name in config.feature_names
            ]
        except ConfigError as error:
            raise ConfigError(error.message, table=config.name, **error.path) from error
    made = Tables(tables, features, seed=seed, row_store=row_store)
    for config in configs:
        if not _is_uniform(config):
            made.set_weight(config.name, _made_by(config))
    return made


def _table_of(config: Any, optimizer: Optimizer) -> FixedTable:
    return FixedTable(
        name=config.name,
        dim=config.embedding_dim,
        num_rows=config.num_embeddings,
        optimizer=optimizer,
        initializer=Uniform(low=config.get_weight_init_min(), high=config.get_weight_init_max()),
    )


def _pooling_of(config: Any) -> Literal["sum", "mean", "none"]:
    if not isinstance(config, EmbeddingBagConfig):
        return "none"
    return "mean" if config.pooling == PoolingType.MEAN else "sum"


def _is_uniform(config: Any) -> bool:
    """Whether the rows begin uniform within the configuration's bounds, which is what TorchRec says by default."""
    made = config.init_fn
    bounds = {"a": config.get_weight_init_min(), "b": config.get_weight_init_max()}
    is_default = isinstance(made, partial) and made.func is torch.nn.init.uniform_ and not made.args
    return made is None or (is_default and made.keywords == bounds)


@torch.no_grad()
def _made_by(config: Any) -> torch.Tensor:
    """The rows that `init_fn` makes, in place as TorchRec has it."""
    rows = torch.zeros(config.num_embeddings, config.embedding_dim)
    config.init_fn(rows)
    return rows


def _refuse_options(config: Any) -> None:
    name = config.name
    if not isinstance(config.num_embeddings, int) or config.num_embeddings < 1:
        raise ConfigError(
            f"num_embeddings must be an integer from 1 on, received {config.num_embeddings!r}", table=name
        )
    if config.data_type != DataType.FP32:
        raise ConfigError(f"data_type must be FP32, in which rows lie; received {config.data_type}", table=name)
    if isinstance(config, EmbeddingBagConfig) and config.pooling not in (PoolingType.SUM, PoolingType.MEAN):
        reason = f"pooling must be SUM or MEAN, received {config.pooling}; an EmbeddingCollection does not pool"
        raise ConfigError(reason, table=name)
    if config.num_embeddings_post_pruning not in (None, config.num_embeddings):
        raise ConfigError("num_embeddings_post_pruning is not supported; give num_embeddings rows", table=name)
    if config.use_virtual_table or config.virtual_table_eviction_policy is not None:
        raise ConfigError("virtual tables are not supported; use embtables.CollisionlessTable", table=name)


def _refuse_device(device: Any) -> None:
    try:
        kind = "cpu" if device is None else torch.device(device).type
    except (RuntimeError, TypeError, ValueError, OverflowError):
        kind = "unknown"
    if kind != "cpu":
        raise ConfigError(f"rows lie on the CPU, received device {device}")

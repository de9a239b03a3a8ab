"""Tables as the native core is told of them."""

from __future__ import annotations

import numpy as np

from embtables.errors import ConfigError
from embtables.native import _core
from embtables.rows.initial import normal_factor
from embtables.rows.stored_table import StoredTable
from embtables.schema import (
    Adagrad,
    Adam,
    CollisionlessTable,
    Constant,
    FixedTable,
    MinCount,
    Normal,
    Probability,
    RowwiseAdagrad,
    Uniform,
)

FOREVER = 2**32 - 1
MAX_HOST_ROWS = 2**32 - 1
_RULES = {"sgd": 0, "adagrad": 1, "rowwise_adagrad": 2, "adam": 3}
_INITIALS = {"zeros": 0, "constant": 1, "normal": 2, "uniform": 3}


ROW_SUM = 3
# Name -> number of the tensors a row has a part of, by optimizer (Part in row_parts.h).
PARTS: dict[str, dict[str, int]] = {
    "sgd": {"weight": 0},
    "adagrad": {"weight": 0, "sum": 1},
    "rowwise_adagrad": {"weight": 0, "sum": ROW_SUM},
    "adam": {"weight": 0, "exp_avg": 1, "exp_avg_sq": 2},
}


def spec_of(table: StoredTable) -> _core.TableSpec:
    """The native description of a table. Raises ConfigError where a fixed one is too large."""
    config, optimizer, initializer = table.config, table.config.optimizer, table.config.initializer
    first = second = 0.0
    if isinstance(initializer, Normal):
        first = normal_factor(initializer.std)
    elif isinstance(initializer, Uniform):
        first, second = initializer.low, float(np.float32(initializer.high - initializer.low))
    elif isinstance(initializer, Constant):
        first = initializer.value
    if isinstance(config, FixedTable) and config.num_rows > MAX_HOST_ROWS:
        raise ConfigError(f"has {config.num_rows:,} rows; the host store holds at most 2^32 - 1", table=config.name)
    spec = _core.TableSpec(
        dim=config.dim,
        num_rows=config.num_rows if isinstance(config, FixedTable) else 0,
        rule=_RULES[optimizer.kind],
        rate=optimizer.learning_rate,
        eps=optimizer.eps if isinstance(optimizer, Adagrad | RowwiseAdagrad | Adam) else 0.0,
        weight_decay=optimizer.weight_decay,
        beta1=optimizer.beta1 if isinstance(optimizer, Adam) else 0.0,
        beta2=optimizer.beta2 if isinstance(optimizer, Adam) else 0.0,
        initial=_INITIALS[initializer.kind],
        initial_a=first,
        initial_b=second,
        seed=table.seed,
    )
    if isinstance(config, CollisionlessTable):
        _set_policy(spec, config)
    if table.is_part:
        spec.set_part(*table.buckets)
    return spec


def _set_policy(spec: _core.TableSpec, config: CollisionlessTable) -> None:
    admission = config.admission
    spec.set_policy(
        min_count=admission.count if isinstance(admission, MinCount) else 1,
        probability=admission.probability if isinstance(admission, Probability) else 1.0,
        max_waiting=admission.max_waiting if isinstance(admission, MinCount) else 0,
        sketch=isinstance(admission, MinCount) and admission.counting == "sketch",
        ttl_seconds=FOREVER if config.ttl_seconds is None else config.ttl_seconds,
        max_rows=config.max_rows or 0,
        cold_row_learns=config.cold_row == "trained",
    )

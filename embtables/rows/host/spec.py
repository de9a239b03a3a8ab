"""Tables as the native core receives them."""

from __future__ import annotations

import numpy as np

from embtables.errors import ConfigError
from embtables.native import _core
from embtables.rows.initial import normal_factor
from embtables.rows.optimizers import native_parameters
from embtables.rows.stored_table import StoredTable
from embtables.schema import CollisionlessTable, Constant, FixedTable, MinCount, Normal, Probability, Uniform

FOREVER = 2**32 - 1
MAX_HOST_ROWS = 2**32 - 1
_INITIALS = {"zeros": 0, "constant": 1, "normal": 2, "uniform": 3}


def spec_of(table: StoredTable, leader: int | None = None) -> _core.TableSpec:
    """The native description of a table.

    Args:
        leader: the number of the store's table whose keys it shares.

    Raises:
        ConfigError: a fixed table is too large, or the native core does not have its optimizer.
    """
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
    rule = table.optimizer.native_rule
    if rule is None:
        raise ConfigError(
            f"the host row store has no optimizer '{optimizer.kind}'; set train.row_store: reference", table=config.name
        )
    parameters = native_parameters(optimizer)
    spec = _core.TableSpec(
        dim=table.format.dim,
        num_rows=config.num_rows if isinstance(config, FixedTable) else 0,
        rule=rule,
        rate=optimizer.learning_rate,
        eps=parameters["eps"],
        weight_decay=optimizer.touch_decay,
        beta1=parameters["beta1"],
        beta2=parameters["beta2"],
        initial=_INITIALS[initializer.kind],
        initial_a=first,
        initial_b=second,
        seed=table.seed,
    )
    if isinstance(config, CollisionlessTable):
        _set_policy(spec, config)
    if table.is_part:
        spec.set_part(*table.buckets)
    if leader is not None:
        spec.set_keys_of(leader)
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

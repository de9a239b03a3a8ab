"""A step of any optimizer in plain torch, over touched rows only; the rules are in optimizers.py."""

from __future__ import annotations

import torch
from torch import Tensor

from embtables.rows.optimizers import optimizer_spec
from embtables.schema import OptimizerConfig


def fresh_state(optimizer: OptimizerConfig, rows: int, dim: int) -> dict[str, Tensor]:
    """State of rows that never learned."""
    columns = optimizer_spec(optimizer).state.items()
    return {name: torch.zeros((rows, dim) if column.per_element else (rows,)) for name, column in columns}


def apply_rule(
    optimizer: OptimizerConfig,
    weights: Tensor,
    state: dict[str, Tensor],
    rows: Tensor,
    gradient: Tensor,
    *,
    learning_rate: float,
    steps: int,
) -> None:
    """One optimizer step over distinct rows (U,) with their gradients (U, D); `steps`: Adam's t."""
    weight = weights[rows]
    of_rows = {name: values[rows] for name, values in state.items()}
    if optimizer.touch_decay > 0.0:
        gradient = torch.add(gradient, weight, alpha=optimizer.touch_decay)
    optimizer_spec(optimizer).step(optimizer, weight, of_rows, gradient, learning_rate, steps)
    weights[rows] = weight
    for name, values in of_rows.items():
        state[name][rows] = values

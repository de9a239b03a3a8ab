"""The optimizers of embtables/schema/tables.py in plain torch, over touched rows only."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from embtables.schema import Adagrad, Adam, Optimizer, RowwiseAdagrad


def fresh_state(optimizer: Optimizer, rows: int, dim: int) -> dict[str, Tensor]:
    """State of rows that never learned."""
    if isinstance(optimizer, Adagrad):
        return {"sum": torch.zeros(rows, dim)}
    if isinstance(optimizer, RowwiseAdagrad):
        return {"sum": torch.zeros(rows)}
    if isinstance(optimizer, Adam):
        return {"exp_avg": torch.zeros(rows, dim), "exp_avg_sq": torch.zeros(rows, dim)}
    return {}


def apply_rule(
    optimizer: Optimizer,
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
    if optimizer.weight_decay > 0.0:
        gradient = torch.add(gradient, weight, alpha=optimizer.weight_decay)
    if isinstance(optimizer, Adagrad):
        total = state["sum"][rows].addcmul_(gradient, gradient)
        state["sum"][rows] = total
        weight.addcdiv_(gradient, total.sqrt_().add_(optimizer.eps), value=-learning_rate)
    elif isinstance(optimizer, RowwiseAdagrad):
        total = state["sum"][rows] + gradient.square().mean(dim=1)
        state["sum"][rows] = total
        weight.addcdiv_(gradient, total.sqrt_().add_(optimizer.eps).unsqueeze(1), value=-learning_rate)
    elif isinstance(optimizer, Adam):
        first = state["exp_avg"][rows].lerp_(gradient, 1.0 - optimizer.beta1)
        second = (
            state["exp_avg_sq"][rows].mul_(optimizer.beta2).addcmul_(gradient, gradient, value=1.0 - optimizer.beta2)
        )
        state["exp_avg"][rows] = first
        state["exp_avg_sq"][rows] = second
        step_size = learning_rate / (1.0 - optimizer.beta1**steps)
        denominator = second.sqrt_().div_(math.sqrt(1.0 - optimizer.beta2**steps)).add_(optimizer.eps)
        weight.addcdiv_(first, denominator, value=-step_size)
    else:
        weight.add_(gradient, alpha=-learning_rate)
    weights[rows] = weight

"""What a rank does in the tests of batch normalisation."""

from __future__ import annotations

import torch
from torch import Tensor

from embtables.models.layers.batch_norm import BatchNorm
from embtables.shard.world import World


def step(world: World, layer: BatchNorm, x: Tensor, gradient: Tensor) -> list[Tensor]:
    """The result, the gradients of x, weight and bias, and the running statistics after a step of training."""
    x = x.clone().requires_grad_()
    out = layer(x)
    out.backward(gradient)
    assert x.grad is not None
    parameters = [torch.zeros_like(p) if p.grad is None else p.grad for p in layer.parameters()]
    for values in parameters:  # as the learner sums dense gradients
        world.all_reduce(values)
    return [out.detach(), x.grad, *parameters, layer.running_mean, layer.running_var]


def part(world: World, weights: dict[str, Tensor], ends: list[int], x: Tensor, gradient: Tensor) -> list[Tensor]:
    """A step with this rank's rows of a batch: those between two of `ends`."""
    layer = BatchNorm(x.shape[1], world)
    layer.load_state_dict(weights)
    own = slice(ends[world.rank], ends[world.rank + 1])
    return step(world, layer, x[own], gradient[own])

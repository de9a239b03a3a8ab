"""Batch normalisation (Ioffe and Szegedy 2015, algorithms 1 and 2) over the rows of all ranks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from embtables.shard.world import World

EPS = 1e-5
MOMENTUM = 0.1  # share of a batch's statistics in the running ones


class BatchNorm(nn.Module):
    """y = weight * (x - mean) / sqrt(var + 1e-5) + bias, by column.

    Training takes mean and variance of the whole batch, whatever part of it each rank has, and moves the running ones
    by a tenth to them (the variance without bias). Inference takes the running ones, so a row's result does not depend
    on the rows beside it. So does training on a batch of less than two rows, which have no variance.

    Args:
        width: columns of x.
        world: the ranks that train together; all of them call this in each step, also without rows.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, width: int, world: World) -> None:
        super().__init__()
        self._world = world
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, width) -> (B, width)."""
        if not self.training:
            return self._normalised(x, of_batch=False)
        if self._world.size == 1:
            return self._normalised(x, of_batch=x.shape[0] > 1)
        rows, mean, var = _statistics(x.detach(), self._world)
        if rows < 2:
            return self._normalised(x, of_batch=False)
        with torch.no_grad():
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), MOMENTUM)
            self.running_var.lerp_((var * (rows / (rows - 1))).to(self.running_var.dtype), MOMENTUM)
        scale = (var + EPS).rsqrt().float()
        unit: Tensor = _OverRanks.apply(x, mean.float(), scale, rows, self._world)  # type: ignore[no-untyped-call]
        return torch.addcmul(self.bias, unit, self.weight).to(x.dtype)

    def _normalised(self, x: Tensor, *, of_batch: bool) -> Tensor:
        """By torch's own kernel, of which the rows are those of this rank."""
        return torch.batch_norm(
            x, self.weight, self.bias, self.running_mean, self.running_var, of_batch, MOMENTUM, EPS, False
        )


def _statistics(x: Tensor, world: World) -> tuple[int, Tensor, Tensor]:
    """Of the (B, width) rows of all ranks: how many, mean and variance (width,) float64; the same bits at all ranks."""
    own = x.double()
    # About the ranks' own means first: a sum of squares about 0 loses the variance of columns with a large mean.
    mean = own.mean(dim=0) if len(own) else torch.zeros(x.shape[1], dtype=torch.float64)
    squares = (own - mean).square().sum(dim=0)
    total = torch.cat([torch.tensor([float(len(own))], dtype=torch.float64), mean * len(own)])
    world.all_reduce(total)
    rows = int(total[0])
    if rows == 0:
        return 0, mean, squares
    of_all = total[1:] / rows
    squares += len(own) * (mean - of_all).square()
    world.all_reduce(squares)
    return rows, of_all, squares / rows


class _OverRanks(torch.autograd.Function):
    """(x - mean) * scale, where mean and scale are those of the rows of all ranks and have gradients through them."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mean: Tensor, scale: Tensor, rows: int, world: World) -> Tensor:
        unit = (x.float() - mean) * scale
        ctx.save_for_backward(unit, scale)
        ctx.rows, ctx.world, ctx.dtype = rows, world, x.dtype
        return unit

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        unit, scale = ctx.saved_tensors
        sums = torch.cat([gradient.double().sum(dim=0), (gradient * unit).double().sum(dim=0)])
        ctx.world.all_reduce(sums)
        along_mean, along_scale = (sums / ctx.rows).float().chunk(2)
        of_x = (gradient - along_mean - unit * along_scale) * scale
        return of_x.to(ctx.dtype), None, None, None, None

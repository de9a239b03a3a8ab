"""Dropout that does not wait for its random numbers.

torch's CPU dropout draws a double for every element, one after the other; with layers of a few hundred units that is a
quarter of a training step. Here one draw of torch's generator seeds an SFC64 stream (its output is fixed by numpy's
compatibility policy) that gives 16 bits an element. So torch's random state alone still decides every mask, and saving
it saves the masks to come.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_STEPS = 1 << 16


class _Masked(torch.autograd.Function):
    """x * mask, where the mask holds 0 or the scale."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor) -> Tensor:
        ctx.save_for_backward(mask)
        return x * mask

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (mask,) = ctx.saved_tensors
        return gradient * mask, None


class Dropout(nn.Module):
    """In training each element is zero with probability p, else divided by 1 - p; p is rounded to 1/65,536.

    Args:
        p: 0 <= p < 1.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self._threshold = round(p * _STEPS)
        self._scale = _STEPS / (_STEPS - self._threshold)

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        if not self.training or self._threshold == 0:
            return x
        seed = int(torch.randint(2**62, ()))
        words = np.random.SFC64(seed).random_raw(-(-x.numel() // 4))
        kept = words.view(np.uint16)[: x.numel()] >= self._threshold
        mask = torch.from_numpy(np.multiply(kept, np.float32(self._scale), dtype=np.float32)).view(x.shape)
        result: Tensor = _Masked.apply(x, mask.to(x.dtype))  # type: ignore[no-untyped-call]
        return result

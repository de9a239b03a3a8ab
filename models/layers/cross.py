"""The cross network of DCN-V2 (Wang et al. 2021, "DCN V2", eq. 1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class CrossNet(nn.Module):
    """x_{l+1} = x_0 * (W_l x_l + b_l) + x_l, elementwise product, full-rank W.

    Args:
        width: size of x.
        num_layers: how many crosses, so the polynomial degree is num_layers + 1.
    """

    def __init__(self, width: int, num_layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(num_layers))
        for layer in self.layers:
            assert isinstance(layer, nn.Linear)
            nn.init.xavier_normal_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x0: Tensor) -> Tensor:
        """(B, width) -> (B, width)."""
        x = x0
        for layer in self.layers:
            x = torch.addcmul(x, x0, layer(x).to(x0.dtype))
        return x

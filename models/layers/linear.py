"""The first-order term that LR, FM and DeepFM share."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LinearTerm(nn.Module):
    """b + sum of the first-order weights of the row's ids + w . dense, one bias and w a label."""

    def __init__(self, num_dense: int, num_labels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(num_labels))
        self.dense = nn.Linear(num_dense, num_labels, bias=False) if num_dense else None
        if self.dense is not None:
            nn.init.zeros_(self.dense.weight)

    def forward(self, weights: Tensor, dense: Tensor) -> Tensor:
        """First-order weights (B, n) of the rows' ids, dense columns -> (B, n_labels)."""
        total: Tensor = weights.sum(dim=1, keepdim=True) + self.bias
        return total if self.dense is None else total + self.dense(dense)

"""The first-order term that LR, FM and DeepFM share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from embtables.errors import ConfigError
from embtables.inputs.batch import JaggedIds
from embtables.models.protocols import PooledCollection


class LinearTerm(nn.Module):
    """b + sum of the first-order weights of the row's ids + w . dense, one bias and w a label.

    Args:
        linear: collection whose embeddings all have dimension 1.
    """

    def __init__(self, linear: PooledCollection, num_dense: int, num_labels: int) -> None:
        super().__init__()
        for name, dim in zip(linear.embedding_names, linear.embedding_dims, strict=True):
            if dim != 1:
                raise ConfigError(f"first-order weights have dimension 1, received {dim} for feature '{name}'")
        self.linear = linear
        self.bias = nn.Parameter(torch.zeros(num_labels))
        self.dense = nn.Linear(num_dense, num_labels, bias=False) if num_dense else None
        if self.dense is not None:
            nn.init.zeros_(self.dense.weight)

    def forward(self, ids: JaggedIds, dense: Tensor) -> Tensor:
        """B rows -> (B, n_labels)."""
        total: Tensor = self.linear(ids).sum(dim=1, keepdim=True) + self.bias
        return total if self.dense is None else total + self.dense(dense)

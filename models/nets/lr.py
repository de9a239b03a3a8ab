"""Logistic regression: one weight per id and one per dense column."""

from __future__ import annotations

from torch import Tensor, nn

from embtables.errors import ConfigError
from embtables.inputs.batch import JaggedIds
from embtables.models.layers.linear import LinearTerm
from embtables.models.protocols import PooledCollection


class LogisticRegression(nn.Module):
    """logit = b + sum of first-order weights of the row's ids + w . dense."""

    def __init__(self, linear: PooledCollection, num_dense: int, num_labels: int) -> None:
        super().__init__()
        for name, dim in zip(linear.embedding_names, linear.embedding_dims, strict=True):
            if dim != 1:
                raise ConfigError(f"first-order weights have dimension 1, received {dim} for feature '{name}'")
        self.linear = linear
        self.first_order = LinearTerm(num_dense, num_labels)

    def forward(self, ids: JaggedIds, dense: Tensor) -> Tensor:
        """B rows -> logits (B, n_labels)."""
        result: Tensor = self.first_order(self.linear(ids), dense)
        return result

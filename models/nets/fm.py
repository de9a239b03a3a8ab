"""Factorisation machine (Rendle 2010, eq. 1)."""

from __future__ import annotations

from torch import Tensor, nn

from embtables.inputs.batch import JaggedIds
from embtables.models.layers import fm_interaction
from embtables.models.layers.linear import LinearTerm
from embtables.models.protocols import PooledFirstOrderCollection, equal_dim


class FactorizationMachine(nn.Module):
    """logit = first-order term + sum over pairs of features of <v_i, v_j>."""

    def __init__(self, embeddings: PooledFirstOrderCollection, num_dense: int, num_labels: int) -> None:
        super().__init__()
        self.dim = equal_dim(embeddings, "fm")
        self.embeddings = embeddings
        self.first_order = LinearTerm(num_dense, num_labels)

    def forward(self, ids: JaggedIds, dense: Tensor) -> Tensor:
        """B rows -> logits (B, n_labels)."""
        pooled, weights = self.embeddings(ids)
        first: Tensor = self.first_order(weights, dense)
        return first + fm_interaction(pooled.view(-1, pooled.shape[1] // self.dim, self.dim))  # (B, F, D)

"""DeepFM (Guo et al. 2017, eq. 1): a factorisation machine and a deep net over the same embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from embtables.inputs.batch import JaggedIds
from embtables.models.layers import Mlp, fm_interaction
from embtables.models.layers.linear import LinearTerm
from embtables.models.protocols import PooledFirstOrderCollection, equal_dim


class DeepFm(nn.Module):
    """logit = first-order term + FM interactions + MLP(embeddings, dense)."""

    def __init__(
        self,
        embeddings: PooledFirstOrderCollection,
        num_dense: int,
        num_labels: int,
        *,
        hidden_sizes: Sequence[int],
        dropout: float,
    ) -> None:
        super().__init__()
        self.dim = equal_dim(embeddings, "deepfm")
        self.embeddings = embeddings
        self.first_order = LinearTerm(num_dense, num_labels)
        self.deep = Mlp(sum(embeddings.embedding_dims) + num_dense, hidden_sizes, dropout)
        self.out = nn.Linear(self.deep.out_size, num_labels, bias=False)

    def forward(self, ids: JaggedIds, dense: Tensor) -> Tensor:
        """B rows -> logits (B, n_labels)."""
        pooled, weights = self.embeddings(ids)
        first: Tensor = self.first_order(weights, dense)
        deep = self.deep(torch.cat([pooled, dense], dim=1) if dense.shape[1] else pooled)
        logits: Tensor = first + fm_interaction(pooled.view(-1, pooled.shape[1] // self.dim, self.dim)) + self.out(deep)
        return logits

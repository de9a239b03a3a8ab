"""DCN-V2 (Wang et al. 2021): explicit crosses of bounded degree and a deep net, parallel or stacked (fig. 1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from embtables.inputs.batch import JaggedIds
from embtables.models.hidden_layers import HiddenLayers
from embtables.models.layers import CrossNet, Mlp
from embtables.models.protocols import PooledCollection
from embtables.shard.world import World


class DcnV2(nn.Module):
    """parallel: logit = w . [cross(x), deep(x)]; stacked: logit = w . deep(cross(x)), x = [embeddings, dense]."""

    def __init__(
        self,
        embeddings: PooledCollection,
        num_dense: int,
        num_labels: int,
        *,
        parallel: bool,
        num_cross_layers: int,
        hidden: HiddenLayers,
        world: World,
    ) -> None:
        super().__init__()
        width = sum(embeddings.embedding_dims) + num_dense
        self.embeddings = embeddings
        self.cross = CrossNet(width, num_cross_layers)
        self.deep = Mlp(width, hidden, world)
        self.out_deep = nn.Linear(self.deep.out_size, num_labels)
        self.out_cross = nn.Linear(width, num_labels, bias=False) if parallel else None

    def forward(self, ids: JaggedIds, dense: Tensor) -> Tensor:
        """B rows -> logits (B, n_labels)."""
        pooled = self.embeddings(ids)
        x = torch.cat([pooled, dense], dim=1) if dense.shape[1] else pooled
        crossed = self.cross(x)
        if self.out_cross is None:
            stacked: Tensor = self.out_deep(self.deep(crossed))
            return stacked
        # Two products and a sum instead of one product of the concatenation: no (B, width + hidden) copy.
        parallel: Tensor = self.out_cross(crossed) + self.out_deep(self.deep(x))
        return parallel

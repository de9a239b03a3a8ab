"""Second-order interactions of a factorisation machine (Rendle 2010, lemma 3.1)."""

from __future__ import annotations

from torch import Tensor


def fm_interaction(embeddings: Tensor) -> Tensor:
    """sum over i < j of <v_i, v_j> = 1/2 sum over d of ((sum_i v_id)^2 - sum_i v_id^2): (B, F, D) -> (B, 1)."""
    squared_sum = embeddings.sum(dim=1).square()
    summed_square = embeddings.square().sum(dim=1)
    return 0.5 * (squared_sum - summed_square).sum(dim=1, keepdim=True)

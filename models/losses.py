"""The loss, and the correction for sampled negatives."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional


def weighted_bce_with_logits(logits: Tensor, labels: Tensor, weight: Tensor | None) -> Tensor:
    """Binary cross entropy: sum over rows of w * l / sum of w, averaged over labels; 0 for a batch without rows.

    Args:
        logits: (B, n_labels) float32.
        labels: (B, n_labels) float32 in [0, 1].
        weight: (B,) float32, or None for weights of one.
    """
    rows = functional.binary_cross_entropy_with_logits(logits, labels, reduction="none").mean(dim=1)
    if rows.shape[0] == 0:
        return logits.sum()
    if weight is None:
        return rows.mean()
    return (rows * weight).sum() / weight.sum().clamp_min(1e-12)


def log_odds_shift(logits: Tensor, negative_sampling_rate: float) -> Tensor:
    """Logits as if all negatives had been kept, where a share r of them was.

    p = q / (q + (1 - q) / r), so logit(p) = logit(q) + ln(r) (He et al. 2014, "Practical lessons from predicting
    clicks on ads at Facebook", section 6.3).
    """
    return logits + math.log(negative_sampling_rate)

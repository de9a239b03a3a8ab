"""The loss, and its corrections for sampled negatives and for positives that come late."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional


def weighted_bce_with_logits(
    logits: Tensor, labels: Tensor, weight: Tensor | None, importance: Tensor | None = None
) -> Tensor:
    """Binary cross entropy: sum over rows of w * l / sum of w, averaged over labels; 0 for a batch without rows.

    Args:
        logits: (B, n_labels) float32.
        labels: (B, n_labels) float32 in [0, 1].
        weight: (B,) float32, or None for weights of one.
        importance: (B, n_labels) float32 factors of l, without part in the sum of w; None: ones.
    """
    each = functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    rows = (each if importance is None else each * importance).mean(dim=1)
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


def late_positive_importance(logits: Tensor, labels: Tensor, late_share: float) -> Tensor:
    """Importance of samples some of whose positives were negatives before (fake negatives), without a gradient.

    Of the positives, a share s comes after the window, and each of those gives two samples: a negative when the window
    closes, and a positive later. So with p = P(positive | x) the samples are distributed as

        b(1 | x) = p / (1 + s p),    b(0 | x) = (1 - p + s p) / (1 + s p)

    and p / b is 1 + s p for a positive, (1 - p) (1 + s p) / (1 - p + s p) for a negative, where the model's prediction
    stands for p. With s = 1, when every positive is a negative first, these are the weights 1 + p and (1 - p) (1 + p)
    of the fake negative weighted loss of Ktena et al. 2019, "Addressing delayed feedback for continuous training with
    neural networks in CTR prediction" (arXiv 1907.06558). The loss has one minimum, at the true p.

    Args:
        logits: (B, n_labels) float32, of the prediction p: corrected for sampled negatives.
        labels: (B, n_labels) float32 in [0, 1].
        late_share: s, in (0, 1].
    """
    p = torch.sigmoid(logits.detach())
    late = late_share * p
    return (1.0 + late) * torch.where(labels > 0.5, 1.0, (1.0 - p) / (1.0 - p + late).clamp_min(1e-12))


def late_positive_calibration(biased: Tensor, late_share: float) -> Tensor:
    """Probabilities p of a model that learned b, the distribution of samples with fake negatives.

    b = p / (1 + s p), see `late_positive_importance`, so p = b / (1 - s b), at most 1. With s = 1 this is b / (1 - b),
    the fake negative calibration of Ktena et al. 2019.

    Args:
        biased: b, of any shape, corrected for sampled negatives.
        late_share: s, in (0, 1].
    """
    return (biased / (1.0 - late_share * biased).clamp_min(1e-12)).clamp_max(1.0)

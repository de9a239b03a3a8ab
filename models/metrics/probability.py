"""Figures of scores that are probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np

from embtables.models.metrics.metric import Floats, Groups

_EPS = 1e-7  # float32 probabilities are kept at least this far from 0 and 1


class ProbabilityMetric:
    """`log_loss`, `normalised_entropy`, `calibration`, `rows` and `positives`.

    log loss = sum w * -(y ln p + (1 - y) ln(1 - p)) / sum w; normalised entropy = log loss / H(mean label) (He et al.
    2014, eq. 1); calibration = sum w p / sum w y.
    """

    def __init__(self) -> None:
        self._rows = 0
        self._sums = np.zeros(4)  # weight, loss, prediction, label

    def update(
        self, scores: Floats, labels: Floats, weights: Floats | None = None, groups: Groups | None = None
    ) -> None:
        """See Metric."""
        p = np.clip(scores.astype(np.float64), _EPS, 1.0 - _EPS)
        y = labels.astype(np.float64)
        w = np.ones(len(p)) if weights is None else weights.astype(np.float64)
        loss = -(y * np.log(p) + (1.0 - y) * np.log1p(-p))
        self._sums += (w.sum(), (w * loss).sum(), (w * scores).sum(), (w * y).sum())
        self._rows += len(p)

    def compute(self) -> dict[str, Any]:
        """See Metric; None if there are no rows, or one class only."""
        weight, loss, prediction, label = (float(v) for v in self._sums)
        mean = label / weight if weight > 0.0 else 0.0
        entropy = -(mean * np.log(mean) + (1.0 - mean) * np.log1p(-mean)) if 0.0 < mean < 1.0 else 0.0
        log_loss = loss / weight if weight > 0.0 else None
        return {
            "log_loss": log_loss,
            "normalised_entropy": float(log_loss / entropy) if log_loss is not None and entropy > 0.0 else None,
            "calibration": prediction / label if label > 0.0 else None,
            "rows": self._rows,
            "positives": round(label, 6),
        }

"""`MetricSet`: the usual CTR figures of one prediction, accumulated batch by batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from embtables.models.metrics.auc import BinnedAuc, Floats, auc, grouped_auc

EXACT_ROWS = 20_000_000
_EPS = 1e-7  # float32 probabilities are told from 0 and 1 no closer than this


class MetricSet:
    """AUC, log loss, normalised entropy, calibration and GAUC of a stream of (score, label, weight, group).

    log loss = sum w * -(y ln p + (1 - y) ln(1 - p)) / sum w; normalised entropy = log loss / H(mean label) (He et al.
    2014, eq. 1); calibration = sum w p / sum w y. AUC and GAUC are exact up to `exact_rows` rows; beyond, AUC
    comes from bins (`auc_exact` is false) and GAUC is None.
    """

    def __init__(self, exact_rows: int = EXACT_ROWS) -> None:
        self._exact_rows = exact_rows
        self._parts: list[tuple[Floats, Floats, Floats | None, npt.NDArray[np.int64] | None]] = []
        self._bins: BinnedAuc | None = None
        self._rows = 0
        self._sums = np.zeros(4)  # weight, loss, prediction, label

    def update(
        self, scores: Floats, labels: Floats, weights: Floats | None = None, groups: npt.NDArray[np.int64] | None = None
    ) -> None:
        """Adds rows: scores (n,), labels (n,) in [0, 1], weights (n,) or None, groups (n,) int64 or None."""
        p = np.clip(scores.astype(np.float64), _EPS, 1.0 - _EPS)
        y = labels.astype(np.float64)
        w = np.ones(len(p)) if weights is None else weights.astype(np.float64)
        loss = -(y * np.log(p) + (1.0 - y) * np.log1p(-p))
        self._sums += (w.sum(), (w * loss).sum(), (w * scores).sum(), (w * y).sum())
        self._rows += len(p)
        if self._bins is None:
            self._parts.append((scores.copy(), labels.copy(), None if weights is None else weights.copy(), groups))
            if self._rows > self._exact_rows:
                self._to_bins()
        else:
            self._bins.update(scores, labels, weights)

    def _to_bins(self) -> None:
        self._bins = BinnedAuc()
        for scores, labels, weights, _ in self._parts:
            self._bins.update(scores, labels, weights)
        self._parts = []

    def merge(self, other: MetricSet) -> None:
        """Adds another set's rows."""
        self._sums += other._sums
        self._rows += other._rows
        self._parts += other._parts
        if self._bins is None and (other._bins is not None or self._rows > self._exact_rows):
            self._to_bins()
        elif self._bins is not None:
            for scores, labels, weights, _ in other._parts:
                self._bins.update(scores, labels, weights)
        if other._bins is not None and self._bins is not None:
            self._bins.merge(other._bins)

    def compute(self) -> dict[str, Any]:
        """The figures as plain floats; None where one is undefined (one class only, no groups)."""
        weight, loss, prediction, label = (float(v) for v in self._sums)
        mean = label / weight if weight > 0.0 else 0.0
        entropy = -(mean * np.log(mean) + (1.0 - mean) * np.log1p(-mean)) if 0.0 < mean < 1.0 else 0.0
        log_loss = loss / weight if weight > 0.0 else None
        area, grouped = self._areas()
        return {
            "auc": area,
            "log_loss": log_loss,
            "normalised_entropy": float(log_loss / entropy) if log_loss is not None and entropy > 0.0 else None,
            "calibration": prediction / label if label > 0.0 else None,
            "gauc": grouped,
            "rows": self._rows,
            "positives": round(label, 6),
            "auc_exact": self._bins is None,
        }

    def _areas(self) -> tuple[float | None, float | None]:
        if self._bins is not None:
            return self._bins.compute(), None
        if not self._parts:
            return None, None
        scores = np.concatenate([part[0] for part in self._parts])
        labels = np.concatenate([part[1] for part in self._parts])
        weights = _join([part[2] for part in self._parts])
        groups = _join([part[3] for part in self._parts])
        grouped = None if groups is None else grouped_auc(scores, labels, groups, weights).value
        return auc(scores, labels, weights), grouped


def _join(parts: list[Any]) -> Any:
    return None if any(part is None for part in parts) else np.concatenate(parts)

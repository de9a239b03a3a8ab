"""AUC and GAUC of a stream, exact up to a number of rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from embtables.models.metrics.auc import BinnedAuc, auc, grouped_auc
from embtables.models.metrics.metric import NO_GROUP, Floats, Groups

EXACT_ROWS = 20_000_000


class RankingMetric:
    """`auc`, `gauc` and `auc_exact`: how well scores order rows; and with groups `null_group_rows`, which have none.

    AUC and GAUC are exact up to `exact_rows` rows; beyond, AUC comes from bins (`auc_exact` is false) and GAUC is None.
    """

    def __init__(self, exact_rows: int = EXACT_ROWS) -> None:
        self._exact_rows = exact_rows
        self._parts: list[tuple[Floats, Floats, Floats | None, Groups | None]] = []
        self._bins: BinnedAuc | None = None
        self._rows = 0
        self._null_groups: int | None = None  # None: no groups were given

    def update(
        self, scores: Floats, labels: Floats, weights: Floats | None = None, groups: Groups | None = None
    ) -> None:
        """See Metric."""
        self._rows += len(scores)
        if groups is not None:
            self._null_groups = (self._null_groups or 0) + int((groups == NO_GROUP).sum())
        if self._bins is not None:
            self._bins.update(scores, labels, weights)
            return
        self._parts.append((scores, labels, weights, groups))
        if self._rows > self._exact_rows:
            self._to_bins()

    def _to_bins(self) -> None:
        self._bins = BinnedAuc()
        for scores, labels, weights, _ in self._parts:
            self._bins.update(scores, labels, weights)
        self._parts = []

    def compute(self) -> dict[str, Any]:
        """See Metric; None if there is one class only, or no groups."""
        area, grouped = self._areas()
        found = {"auc": area, "gauc": grouped, "auc_exact": self._bins is None}
        return found if self._null_groups is None else {**found, "null_group_rows": self._null_groups}

    def _areas(self) -> tuple[float | None, float | None]:
        if self._bins is not None:
            return self._bins.compute(), None
        if not self._parts:
            return None, None
        scores = np.concatenate([part[0] for part in self._parts])
        labels = np.concatenate([part[1] for part in self._parts])
        weights = _join([part[2] for part in self._parts])
        groups = _join([part[3] for part in self._parts])
        if groups is None:
            return auc(scores, labels, weights), None
        area = auc(scores, labels, weights)
        if self._null_groups:
            there = groups != NO_GROUP
            scores, labels, groups = scores[there], labels[there], groups[there]
            weights = None if weights is None else weights[there]
        return area, grouped_auc(scores, labels, groups, weights).value


def _join(parts: list[Any]) -> Any:
    return None if any(part is None for part in parts) else np.concatenate(parts)

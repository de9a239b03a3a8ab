"""`MetricSet`: all registered metrics over one stream of predictions."""

from __future__ import annotations

from typing import Any

from embtables.models.metrics.metric import METRICS, Floats, Groups


class MetricSet:
    """Accumulates (score, label, weight, group) for every metric that is registered when it is made.

    Args:
        of_order: only figures that depend on the order of scores alone, for scores that are no probabilities.
    """

    def __init__(self, *, of_order: bool = False) -> None:
        specs = [spec for spec in METRICS.values() if spec.of_order or not of_order]
        self._metrics = [spec.make() for spec in specs]
        self._names = frozenset().union(*(spec.of_order for spec in specs)) if of_order else None

    def update(
        self, scores: Floats, labels: Floats, weights: Floats | None = None, groups: Groups | None = None
    ) -> None:
        """Adds rows: scores (n,), labels (n,) in [0, 1], weights (n,) or None, groups (n,) int64 or None."""
        for metric in self._metrics:
            metric.update(scores, labels, weights, groups)

    def compute(self) -> dict[str, Any]:
        """The figures of all metrics, as plain numbers; None if one is undefined."""
        found: dict[str, Any] = {}
        for metric in self._metrics:
            found.update(metric.compute())
        return found if self._names is None else {n: value for n, value in found.items() if n in self._names}

"""Figures of CTR predictions."""

from embtables.models.metrics.auc import BinnedAuc, GroupedAuc, auc, grouped_auc
from embtables.models.metrics.metric_set import MetricSet

__all__ = ["BinnedAuc", "GroupedAuc", "MetricSet", "auc", "grouped_auc"]

"""Figures of CTR predictions."""

from models.metrics.auc import BinnedAuc, GroupedAuc, auc, grouped_auc
from models.metrics.metric_set import MetricSet

__all__ = ["BinnedAuc", "GroupedAuc", "MetricSet", "auc", "grouped_auc"]

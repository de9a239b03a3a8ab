"""Figures of predictions. A metric is its file and its line here."""

from embtables.models.metrics.auc import BinnedAuc, GroupedAuc, auc, grouped_auc
from embtables.models.metrics.metric import (
    METRICS,
    NO_GROUP,
    Metric,
    MetricSpec,
    Monitor,
    forget_metric,
    monitor_of,
    register_metric,
)
from embtables.models.metrics.metric_set import MetricSet
from embtables.models.metrics.probability import ProbabilityMetric
from embtables.models.metrics.ranking import RankingMetric

__all__ = [
    "METRICS",
    "NO_GROUP",
    "BinnedAuc",
    "GroupedAuc",
    "Metric",
    "MetricSet",
    "MetricSpec",
    "Monitor",
    "ProbabilityMetric",
    "RankingMetric",
    "auc",
    "forget_metric",
    "grouped_auc",
    "monitor_of",
    "register_metric",
]

register_metric(MetricSpec("ranking", RankingMetric, {"auc": True, "gauc": True}, frozenset({"auc", "gauc"})))
register_metric(MetricSpec("probability", ProbabilityMetric, {"log_loss": False, "normalised_entropy": False}))

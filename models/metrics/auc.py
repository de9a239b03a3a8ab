"""Area under the ROC curve: exact with ties averaged, in bins for streams, and averaged over groups (GAUC)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
BIN_BITS = 18


def auc(scores: Floats, labels: Floats, weights: Floats | None = None) -> float | None:
    """P(score of a positive > score of a negative) + P(equal) / 2, weighted; None if a class is absent.

    Args:
        scores: (n,) finite.
        labels: (n,) in [0, 1]; a fractional label counts as that share of a positive.
        weights: (n,) >= 0, or None for ones.
    """
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    label = labels[order].astype(np.float64)
    weight = np.ones(len(order)) if weights is None else weights[order].astype(np.float64)
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(order) else np.empty(0, np.int64)
    if len(starts) == 0:
        return None
    return _auc_of_bins(np.add.reduceat(weight * label, starts), np.add.reduceat(weight * (1.0 - label), starts))


def _auc_of_bins(positive: npt.NDArray[np.float64], negative: npt.NDArray[np.float64]) -> float | None:
    """AUC where all rows of a bin tie; bins in order of score."""
    total = positive.sum() * negative.sum()
    if total <= 0.0:
        return None
    below = np.cumsum(negative) - negative
    return float((positive * (below + 0.5 * negative)).sum() / total)


class BinnedAuc:
    """AUC of a stream in constant memory: scores are distinguished by the 18 leading bits of their float32 order.

    Two scores share a bin only within a relative distance of 2^-9, anywhere on the number line. The error is at most
    half the share of (positive, negative) pairs that share a bin, which `error_bound` computes.
    """

    def __init__(self) -> None:
        self._positive = np.zeros(1 << BIN_BITS)
        self._negative = np.zeros(1 << BIN_BITS)

    def update(self, scores: Floats, labels: Floats, weights: Floats | None = None) -> None:
        """Adds rows."""
        bits = np.ascontiguousarray(scores, np.float32).view(np.uint32)
        # Float order as unsigned order: flip all bits of negatives, the sign bit of others.
        ordered = np.where(bits >> 31 != 0, ~bits, bits | np.uint32(1 << 31))
        bins = (ordered >> np.uint32(32 - BIN_BITS)).astype(np.int64)
        weight = np.ones(len(bins)) if weights is None else weights.astype(np.float64)
        label = labels.astype(np.float64)
        self._positive += np.bincount(bins, weight * label, 1 << BIN_BITS)
        self._negative += np.bincount(bins, weight * (1.0 - label), 1 << BIN_BITS)

    def merge(self, other: BinnedAuc) -> None:
        """Adds another stream's rows."""
        self._positive += other._positive
        self._negative += other._negative

    def compute(self) -> float | None:
        """The AUC; None if a class is absent."""
        return _auc_of_bins(self._positive, self._negative)

    def error_bound(self) -> float:
        """Largest possible |compute() - exact AUC|."""
        total = self._positive.sum() * self._negative.sum()
        return float(0.5 * (self._positive * self._negative).sum() / total) if total > 0.0 else 0.0


@dataclass(frozen=True, slots=True)
class GroupedAuc:
    """GAUC and what it rests on: groups with both classes, and groups left out for having one."""

    value: float | None
    groups: int
    one_class_groups: int


def grouped_auc(scores: Floats, labels: Floats, groups: npt.NDArray[np.int64], weights: Floats | None) -> GroupedAuc:
    """AUC within each group, averaged by the groups' weight (rows, without weights); (Zhu et al. 2017, eq. 7)."""
    order = np.lexsort((scores, groups))
    if len(order) == 0:
        return GroupedAuc(None, 0, 0)
    group, score = groups[order], scores[order]
    label = labels[order].astype(np.float64)
    weight = np.ones(len(order)) if weights is None else weights[order].astype(np.float64)
    new_group = np.r_[True, group[1:] != group[:-1]]
    ties = np.flatnonzero(new_group | np.r_[True, score[1:] != score[:-1]])
    positive = np.add.reduceat(weight * label, ties)
    negative = np.add.reduceat(weight * (1.0 - label), ties)
    first_tie = np.flatnonzero(new_group[ties])
    group_of_tie = np.cumsum(new_group[ties]) - 1
    before = np.cumsum(negative) - negative
    below = before - before[first_tie][group_of_tie]
    pairs = np.add.reduceat(positive * (below + 0.5 * negative), first_tie)
    total = np.add.reduceat(positive, first_tie) * np.add.reduceat(negative, first_tie)
    size = np.add.reduceat(positive + negative, first_tie)
    both = total > 0.0
    if not both.any():
        return GroupedAuc(None, 0, len(both))
    value = float(((pairs[both] / total[both]) * size[both]).sum() / size[both].sum())
    return GroupedAuc(value, int(both.sum()), int((~both).sum()))

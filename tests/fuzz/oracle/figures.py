"""AUC and GAUC of a column, pair by pair."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# Value, label and weight of a row.
Judged = tuple[Any, float, float]


def auc(rows: Sequence[Judged]) -> float | None:
    """The share of pairs of a positive and a negative that a column has in order; equal ones count half."""
    positives = [(value, weight) for value, label, weight in rows if label == 1]
    negatives = [(value, weight) for value, label, weight in rows if label == 0]
    total = sum(w for _, w in positives) * sum(w for _, w in negatives)
    if not total:
        return None
    won = sum(w * v * ((a > b) + (a == b) / 2) for a, w in positives for b, v in negatives)
    return won / total


def gauc(groups: dict[Any, list[Judged]]) -> float | None:
    """The AUC of each group with both classes, averaged by the groups' weight."""
    found = [(area, sum(weight for *_, weight in rows)) for rows in groups.values() if (area := auc(rows)) is not None]
    return sum(area * weight for area, weight in found) / sum(weight for _, weight in found) if found else None

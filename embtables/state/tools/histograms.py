"""How values are spread over rows: quantiles and a histogram, as plain numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

NUM_BINS = 24
QUANTILES = {"least": 0.0, "p50": 0.5, "p90": 0.9, "p99": 0.99, "greatest": 1.0}

Values = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Bin:
    """`rows` rows have a value in [start, end); the last bin of real values has its end too."""

    start: float
    end: float
    rows: int


@dataclass(frozen=True, slots=True)
class Distribution:
    """Of a value over the rows of a table.

    Attributes:
        unit: of the value.
        quantiles: least, p50, p90, p99, greatest: values that a row has; empty if there are no rows.
        bins: the histogram, ascending.
    """

    unit: str
    quantiles: dict[str, float]
    bins: tuple[Bin, ...]


def of_integers(values: Values, unit: str) -> Distribution:
    """Integers (n,) in at most `NUM_BINS` bins of one width, which is an integer too."""
    if not len(values):
        return Distribution(unit, {}, ())
    low, high = int(values.min()), int(values.max())
    width = -(-(high - low + 1) // NUM_BINS)
    return Distribution(unit, _quantiles(values), _bins(values, np.arange(low, high + width + 1, width)))


def of_counts(values: Values, unit: str) -> Distribution:
    """Counts (n,), never negative, in bins that double: 0, 1, 2-3, 4-7, ..."""
    if not len(values):
        return Distribution(unit, {}, ())
    edges = np.array([0, *(2**power for power in range(int(values.max()).bit_length() + 1))])
    return Distribution(unit, _quantiles(values), _bins(values, edges))


def of_reals(values: Values, unit: str) -> Distribution:
    """Finite numbers (n,) of no sign in `NUM_BINS` bins from 0 on."""
    if not len(values):
        return Distribution(unit, {}, ())
    edges = np.linspace(0.0, float(values.max()) or 1.0, NUM_BINS + 1)
    return Distribution(unit, _quantiles(values), _bins(values, edges))


def _quantiles(values: Values) -> dict[str, float]:
    found = np.quantile(values, list(QUANTILES.values()), method="inverted_cdf")
    return dict(zip(QUANTILES, found.tolist(), strict=True))


def _bins(values: Values, edges: Values) -> tuple[Bin, ...]:
    rows, _ = np.histogram(values, edges)
    return tuple(map(Bin, edges[:-1].tolist(), edges[1:].tolist(), rows.tolist()))

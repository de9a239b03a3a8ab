"""How many rows a table will have at the end of the log, from how it grew in the sample.

Two ways are tried on the sample itself: a quarter of it foretells the whole. The nearer one is used.

- power law (Heaps 1978): rows(m) = rows(n) * (m / n)^b, b the slope from a quarter to the whole; for tails without end
- Chao: rows(m) = rows(n) + f0 * (1 - (1 - f1 / (n f0))^(m - n)), f0 = f1^2 / (2 f2), f1 and f2 the keys seen once and
  twice (Chao 1984; Colwell et al. 2012, eq. 9); for a vocabulary that comes to its end
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from embtables.schema import CollisionlessTable, MinCount, Probability
from pipelines.plan.keys import Ints, KeySample


@dataclass(frozen=True)
class Estimate:
    """Rows of a table.

    Attributes:
        rows: expected; `low` to `high`: what the two ways say.
        how: given, whole log, power law, Chao, max_rows, ttl, or fixed.
        error: relative, of the way used, where a quarter of the sample foretold the whole; None: nothing was foretold.
        waiting: keys that wait for admission.
    """

    rows: float
    low: float
    high: float
    how: str
    error: float | None = None
    waiting: float = 0.0


def estimate(
    table: CollisionlessTable, sample: KeySample, log_rows: int, epochs: int, rows_in_ttl: float | None
) -> Estimate:
    """Rows at the end of so many epochs of a log of `log_rows` rows.

    Args:
        rows_in_ttl: how many log rows pass within the table's ttl; None without one.
    """
    most = -(-_occurrences(table) // epochs)
    admitted = _rows_of_occurrence(sample, most)
    seen = _rows_of_occurrence(sample, 1)
    wanted = float(log_rows) if rows_in_ttl is None else min(float(log_rows), rows_in_ttl)
    found = _at(sample, admitted, wanted)
    if rows_in_ttl is not None and wanted < log_rows:
        found = Estimate(found.rows, found.low, found.high, f"ttl, {found.how}", found.error)
    waiting = 0.0
    if isinstance(table.admission, MinCount) and most > 1:
        waiting = min(float(table.admission.max_waiting), max(0.0, _at(sample, seen, wanted).rows - found.rows))
    if table.max_rows is not None and found.rows > table.max_rows:
        limit = float(table.max_rows)
        return Estimate(limit, min(found.low, limit), limit, "max_rows", None, waiting)
    return Estimate(found.rows, found.low, found.high, found.how, found.error, waiting)


def _occurrences(table: CollisionlessTable) -> int:
    """At which occurrence a key gets its row; under a probability, the expected one."""
    if isinstance(table.admission, MinCount):
        return table.admission.count
    if isinstance(table.admission, Probability):
        return math.ceil(1.0 / table.admission.probability)
    return 1


def _rows_of_occurrence(sample: KeySample, which: int) -> Ints:
    """The log rows in which keys occur for the `which`-th time, ascending."""
    codes = np.searchsorted(sample.distinct_keys, sample.keys)
    order = np.argsort(codes, kind="stable")
    begins = np.concatenate([[0], np.cumsum(sample.counts)[:-1]]).astype(np.int64)
    enough = sample.counts >= which
    return np.sort(sample.rows[order[begins[enough] + which - 1]])


def _at(sample: KeySample, made: Ints, rows: float) -> Estimate:
    """How many of the keys have come so far when `rows` log rows have."""
    n = sample.num_rows
    if rows <= n:
        found = float(np.searchsorted(made, rows))
        return Estimate(found, found, found, "whole log")
    quarter = n // 4
    errors = {name: _error(foretell(sample, made, quarter, float(n)), len(made)) for name, foretell in _WAYS.items()}
    foretold = {name: foretell(sample, made, n, rows) for name, foretell in _WAYS.items()}
    best = min(errors, key=lambda name: errors[name])
    low, high = min(foretold.values()), max(foretold.values())
    return Estimate(foretold[best], low, high, best, round(errors[best], 4))


def _error(foretold: float, found: int) -> float:
    return abs(foretold - found) / max(found, 1)


def _power_law(sample: KeySample, made: Ints, n: int, rows: float) -> float:
    now, before = np.searchsorted(made, [n, n // 4])
    if now == 0 or before == 0:
        return float(now) * rows / max(n, 1)
    slope = math.log(now / before) / math.log(max(n, 2) / max(n // 4, 1))
    return float(now * (rows / n) ** min(1.0, slope))


def _chao(sample: KeySample, made: Ints, n: int, rows: float) -> float:
    now = float(np.searchsorted(made, n))
    taken = np.searchsorted(sample.rows, n)
    counts = np.unique(sample.keys[:taken], return_counts=True)[1]
    once, twice = int((counts == 1).sum()), int((counts == 2).sum())
    if once == 0:
        return now
    unseen = float(once**2 / (2 * twice) if twice else once * (once - 1) / 2)
    if unseen <= 0.0:
        return now
    keys = max(int(taken), 1)
    left = math.pow(1.0 - min(1.0, once / (keys * unseen)), keys * (rows / n - 1.0))
    share = now / max(len(counts), 1)  # of the keys, how many have a row
    return now + share * unseen * (1.0 - left)


_WAYS = {"power law": _power_law, "Chao": _chao}

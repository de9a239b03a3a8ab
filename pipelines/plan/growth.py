"""How many rows a table will have at the end of the log, from how it grew in the sample.

Two ways are tried on the sample itself: a quarter of it foretells the whole. The nearer one is used.

- power law (Heaps 1978): rows(m) = rows(n) * (m / n)^b, b the slope from a quarter to the whole; for tails without end
- Chao: rows(m) = rows(n) + f0 * (1 - exp(-(m / n - 1) f1 / f0)), f0 = f1^2 / (2 f2), f1 and f2 the keys seen once and
  twice (Chao 1984; Colwell et al. 2012); for a vocabulary that comes to its end
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from embtables.pipelines.plan.keys import Ints, KeySample
from embtables.schema import CollisionlessTable, MinCount, Probability


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
    wanted = float(log_rows) if rows_in_ttl is None else min(float(log_rows), rows_in_ttl)
    found = _at(sample, most, wanted)
    if rows_in_ttl is not None and wanted < log_rows:
        found = Estimate(found.rows, found.low, found.high, f"ttl, {found.how}", found.error)
    waiting = 0.0
    if isinstance(table.admission, MinCount) and most > 1:
        waiting = min(float(table.admission.max_waiting), max(0.0, _at(sample, 1, wanted).rows - found.rows))
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


def _at(sample: KeySample, which: int, rows: float) -> Estimate:
    """How many keys have come for the `which`-th time when `rows` log rows have."""
    made = _rows_of_occurrence(sample, which)
    n = sample.num_rows
    if rows <= n:
        found = float(np.searchsorted(made, rows))
        return Estimate(found, found, found, "whole log")
    quarter = n // 4
    errors = {
        name: _error(foretell(sample, made, quarter, float(n), which), len(made)) for name, foretell in _WAYS.items()
    }
    foretold = {name: foretell(sample, made, n, rows, which) for name, foretell in _WAYS.items()}
    best = min(errors, key=lambda name: errors[name])
    low, high = min(foretold.values()), max(foretold.values())
    return Estimate(foretold[best], low, high, best, round(errors[best], 4))


def _error(foretold: float, found: int) -> float:
    return abs(foretold - found) / max(found, 1)


def _power_law(sample: KeySample, made: Ints, n: int, rows: float, which: int) -> float:
    now, before = np.searchsorted(made, [n, n // 4])
    if now == 0 or before == 0:
        return float(now) * rows / max(n, 1)
    slope = math.log(now / before) / math.log(max(n, 2) / max(n // 4, 1))
    return float(now * (rows / n) ** min(1.0, slope))


def _chao(sample: KeySample, made: Ints, n: int, rows: float, which: int) -> float:
    """Of a key seen x times so far, lambda_x = (x + 1) f_(x+1) / f_x occurrences are expected among as many rows again
    (Good 1953), of each of the f0 unseen ones f1 / f0; how often they really come is taken to be Poisson."""
    taken = int(np.searchsorted(sample.rows, n))
    counts = np.unique(sample.keys[:taken], return_counts=True)[1]
    seen = np.bincount(counts, minlength=which + 2).astype(float)
    once, twice = seen[1], seen[2] if len(seen) > 2 else 0.0
    unseen = float(once**2 / (2 * twice) if twice else once * max(once - 1, 0) / 2)
    more = rows / n - 1.0
    total = float(seen[which:].sum())
    if unseen > 0.0:
        total += unseen * _at_least(which, more * once / unseen)
    for x in range(1, which):
        if seen[x]:
            total += float(seen[x]) * _at_least(which - x, more * (x + 1) * seen[x + 1] / seen[x])
    return total


def _at_least(times: int, mean: float) -> float:
    """P(Poisson(mean) >= times)."""
    below, term = 0.0, math.exp(-mean)
    for k in range(times):
        below += term
        term *= mean / (k + 1)
    return max(0.0, 1.0 - below)


_WAYS = {"power law": _power_law, "Chao": _chao}

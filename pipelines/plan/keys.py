"""Statistics of one table's keys in a sample of the log: distinct keys of parts of a batch, hot keys, load of owners,
and how many rows the table will have at the end of the log.

Shape letters: n occurrences of keys, U distinct keys.

Rows at the end are predicted in two ways, each tried on the sample itself: a quarter of it predicts the whole. The
nearer one is used.

- power law (Heaps 1978): rows(m) = rows(n) * (m / n)^b, b the slope from a quarter to the whole; unbounded vocabularies
- Chao: rows(m) = rows(n) + f0 * (1 - exp(-(m / n - 1) f1 / f0)), f0 = f1^2 / (2 f2), f1 and f2 the keys seen once and
  twice (Chao 1984; Colwell et al. 2012); for a bounded vocabulary
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from embtables.keyspace import NUM_BUCKETS, buckets_of
from embtables.schema import CollisionlessTable, MinCount, Probability

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_PART_KEYS = 1 << 17  # occurrences looked at for one size of part
_LEAST_PARTS = 4


@dataclass(frozen=True)
class Spread:
    """Distinct keys of a part by bucket of the key space, (1,024,) each: mean and variance over parts."""

    mean: Floats
    variance: Floats


@dataclass
class KeySample:
    """Keys that a table is asked for, in the order of the log's rows.

    Attributes:
        keys: (n,) int64.
        rows: (n,) the log row of each, ascending, from 0.
        num_rows: rows that were read; some may have no key.
        batch_rows: rows of a batch; parts of a batch do not reach beyond it.
    """

    keys: Ints
    rows: Ints
    num_rows: int
    batch_rows: int
    _spreads: dict[tuple[int, int], Spread] = field(default_factory=dict, repr=False)
    _distinct: dict[int, float] = field(default_factory=dict, repr=False)

    @cached_property
    def _coded(self) -> tuple[Ints, Ints]:
        distinct, codes = np.unique(self.keys, return_inverse=True)
        return distinct, codes.astype(np.int64)

    @property
    def distinct_keys(self) -> Ints:
        """(U,) ascending."""
        return self._coded[0]

    @cached_property
    def counts(self) -> Ints:
        """(U,) how often each distinct key occurs."""
        return np.bincount(self._coded[1], minlength=len(self.distinct_keys)).astype(np.int64)

    @property
    def keys_per_row(self) -> float:
        """Mean number of keys of a row."""
        return len(self.keys) / max(self.num_rows, 1)

    def _parts(self, part_rows: int) -> tuple[Ints, int]:
        """Pairs (part, key) that occur, as part * U + code, ascending, of parts all over the sample; how many parts."""
        whole = max(1, self.num_rows // part_rows)
        wanted = max(_LEAST_PARTS, int(_PART_KEYS / max(self.keys_per_row * part_rows, 1e-9)))
        chosen = np.unique(np.linspace(0, whole - 1, min(whole, wanted)).astype(np.int64))
        begins = np.searchsorted(self.rows, chosen * part_rows)
        ends = np.searchsorted(self.rows, (chosen + 1) * part_rows)
        codes, u = self._coded[1], len(self.distinct_keys)
        pairs = [number * u + codes[b:e] for number, (b, e) in enumerate(zip(begins, ends, strict=True))]
        return np.unique(np.concatenate(pairs)), len(chosen)

    def distinct(self, part_rows: int) -> float:
        """Mean number of distinct keys among so many consecutive rows; those beyond the sample follow its growth."""
        if part_rows not in self._distinct:
            self._distinct[part_rows] = self._count_distinct(part_rows)
        return self._distinct[part_rows]

    def _count_distinct(self, part_rows: int) -> float:
        if len(self.keys) == 0:
            return 0.0
        if part_rows <= self.num_rows:
            pairs, parts = self._parts(part_rows)
            return len(pairs) / parts
        half = self.distinct(max(1, self.num_rows // 2))
        slope = np.log2(max(len(self.distinct_keys), 1) / max(half, 1e-9))
        return float(len(self.distinct_keys) * (part_rows / self.num_rows) ** min(1.0, max(0.0, slope)))

    def spread(self, part_rows: int, seed: int) -> Spread:
        """The buckets of a part's distinct keys; `seed`: the table's."""
        at = (part_rows, seed)
        if at not in self._spreads:
            self._spreads[at] = self._find_spread(part_rows, seed)
        return self._spreads[at]

    def _find_spread(self, part_rows: int, seed: int) -> Spread:
        if len(self.keys) == 0:
            return Spread(np.zeros(NUM_BUCKETS), np.zeros(NUM_BUCKETS))
        pairs, parts = self._parts(min(part_rows, self.num_rows))
        u = len(self.distinct_keys)
        in_parts = np.bincount(pairs % u, minlength=u) / parts  # the chance that a part has the key
        buckets = buckets_of(self.distinct_keys, seed).astype(np.int64)
        mean = np.bincount(buckets, weights=in_parts, minlength=NUM_BUCKETS).astype(np.float64)
        doubt = np.bincount(buckets, weights=in_parts * (1.0 - in_parts), minlength=NUM_BUCKETS)
        return Spread(mean, doubt.astype(np.float64))

    def zipf_exponent(self) -> float:
        """s of P(rank r) ~ r^-s over the sample's distinct keys, by maximum likelihood over ranks by count (Goldstein,
        Morris and Yen 2004, "Problems with fitting to the power-law distribution"); 0 of uniform keys."""
        counts = np.sort(self.counts)[::-1].astype(np.float64)
        if len(counts) < 2:
            return 0.0
        logs = np.log(np.arange(1, len(counts) + 1))
        mean_log = float((counts * logs).sum() / counts.sum())
        low, high = 0.0, 8.0
        for _ in range(40):  # the likelihood's slope in s falls: E[log rank] under s against what was seen
            s = (low + high) / 2
            weights = np.exp(-s * logs)
            if float((weights * logs).sum() / weights.sum()) > mean_log:
                low = s
            else:
                high = s
        return (low + high) / 2

    def figures(self) -> dict[str, Any]:
        """What a report shows."""
        n, counts = max(len(self.keys), 1), np.sort(self.counts)[::-1]
        percent = max(1, len(counts) // 100)
        in_batch = self.distinct(self.batch_rows)
        return {
            "keys_per_row": round(self.keys_per_row, 3),
            "distinct_in_sample": len(self.distinct_keys),
            "distinct_per_batch": round(in_batch, 1),
            "duplicates_per_batch": round(self.keys_per_row * self.batch_rows / in_batch, 2) if in_batch else None,
            "zipf_exponent": round(self.zipf_exponent(), 3),
            "share_of_hottest_key": round(float(counts[:1].sum()) / n, 4),
            "share_of_hottest_percent": round(float(counts[:percent].sum()) / n, 4),
        }


def owner_loads(spread: Spread, ranks: int) -> tuple[Floats, Floats]:
    """Keys that each owner is asked for by `ranks` parts like those of the spread: mean and variance, (ranks,)."""
    starts = np.arange(ranks) * NUM_BUCKETS // ranks
    mean: Floats = np.add.reduceat(spread.mean, starts) * ranks
    variance: Floats = np.add.reduceat(spread.variance, starts) * ranks
    return mean, variance


def busiest(mean: Floats, variance: Floats) -> float:
    """The load of a step's busiest owner over the mean of all; at least 1.

    Owners' loads are taken to be normal and independent: the expected greatest, by the product of their distributions.
    A key that every part has adds to the mean and not to the variance.
    """
    average = float(mean.mean())
    if len(mean) == 1 or average <= 0.0:
        return 1.0
    deviation = np.sqrt(np.maximum(variance, 1e-9))
    grid = np.linspace(float((mean - 3 * deviation).max()), float((mean + 6 * deviation).max()), 96)
    z = (grid[:, None] - mean) / deviation
    # The normal distribution function by a logistic one (Bowling et al. 2009; error below 0.0002).
    below = np.exp(-np.logaddexp(0.0, -(1.5976 * z + 0.07056 * z**3)).sum(axis=1))
    greatest = float(grid[0] + np.trapezoid(1.0 - below, grid))
    return max(1.0, greatest / average)


@dataclass(frozen=True)
class Estimate:
    """Rows of a table.

    Attributes:
        rows: expected; `low` to `high`: what the two ways say.
        how: given, whole log, power law, Chao, max_rows, ttl, or fixed.
        error: relative, of the way used, when a quarter of the sample predicted all of it; None: not predicted.
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
        name: _error(predict(sample, made, quarter, float(n), which), len(made)) for name, predict in _WAYS.items()
    }
    predicted = {name: predict(sample, made, n, rows, which) for name, predict in _WAYS.items()}
    best = min(errors, key=lambda name: errors[name])
    low, high = min(predicted.values()), max(predicted.values())
    return Estimate(predicted[best], low, high, best, round(errors[best], 4))


def _error(predicted: float, found: int) -> float:
    return abs(predicted - found) / max(found, 1)


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

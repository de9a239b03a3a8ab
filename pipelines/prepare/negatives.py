"""Sampled negatives that never look at the future.

A positive of day d gets K other items, drawn from the items sold on the `pool_days` days before d (d itself excluded)
with probability q proportional to count^exponent. Drawing from everything sold so far instead would leak the trend:
what is out of season is easy to recognize. Items of the positive's own group are not negatives. A positive
whose own item is outside the pool would be recognized by that alone: `in_pool` marks those to keep.

Down-sampling the negatives shifts a model's log odds. If each item of the pool counts as shown once per positive, item
i is kept as a negative at the rate K * q_i: `rates` returns it, and `embtables.models.losses.log_odds_shift` undoes a
constant rate (He et al. 2014).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]
MAX_REDRAWS = 50


@dataclass(frozen=True, slots=True)
class Negatives:
    """For n positives: `items` (n, K) int64, -1 where the pool had none; `rates` (n, K) expected count per positive;
    `in_pool` (n,) whether the positive's own item could have been drawn; `pool_sizes` (n,) items to draw from."""

    items: Int64s
    rates: npt.NDArray[np.float64]
    in_pool: npt.NDArray[np.bool_]
    pool_sizes: Int64s


def sample_negatives(
    items: Int64s,
    days: Int64s,
    groups: Int64s,
    *,
    num_negatives: int,
    pool_days: int,
    exponent: float,
    seed: int,
) -> Negatives:
    """Negatives of positives in order of time.

    Args:
        items: (n,) item numbers from 0.
        days: (n,) day numbers, ascending.
        groups: (n,) the group (invoice) of each positive.
        seed: each day draws from its own generator of (seed, day), so the result does not depend on how the log is
            cut, and days drawn again give the same.
    """
    n, num_items = len(items), int(items.max(initial=-1)) + 1
    drawn = np.full((n, num_negatives), -1, np.int64)
    rates = np.zeros((n, num_negatives))
    in_pool = np.zeros(n, np.bool_)
    sizes = np.zeros(n, np.int64)
    taken = _Pairs(groups, items)
    counts = np.zeros(num_items, np.int64)
    distinct, starts = np.unique(days, return_index=True)
    ends = np.append(starts[1:], n)
    oldest = 0
    for day, start, stop in zip(distinct, starts, ends, strict=True):
        while distinct[oldest] < day - pool_days:
            counts -= np.bincount(items[starts[oldest] : ends[oldest]], minlength=num_items)
            oldest += 1
        pool = np.flatnonzero(counts)
        if len(pool):
            weights = counts[pool].astype(np.float64) ** exponent
            random = np.random.default_rng([seed, int(day)])
            places = _draw(random, weights, taken, groups[start:stop], pool, num_negatives)
            q = weights / weights.sum()
            drawn[start:stop] = np.where(places < 0, -1, pool[places])
            rates[start:stop] = np.where(places < 0, 0.0, num_negatives * q[places])
            in_pool[start:stop] = counts[items[start:stop]] > 0
            sizes[start:stop] = len(pool)
        counts += np.bincount(items[start:stop], minlength=num_items)
    return Negatives(drawn, rates, in_pool, sizes)


class _Pairs:
    """A set of (group, item)."""

    def __init__(self, groups: Int64s, items: Int64s) -> None:
        self._width = int(items.max(initial=0)) + 1
        self._known = np.unique(groups * self._width + items)

    def contains(self, groups: Int64s, items: Int64s) -> npt.NDArray[np.bool_]:
        asked = groups * self._width + items
        places = np.minimum(np.searchsorted(self._known, asked), len(self._known) - 1)
        found: npt.NDArray[np.bool_] = self._known[places] == asked
        return found


def _draw(
    random: np.random.Generator,
    weights: npt.NDArray[np.float64],
    taken: _Pairs,
    groups: Int64s,
    pool: Int64s,
    num_negatives: int,
) -> Int64s:
    """(m, K) places in the pool by weight, those in the positive's own group drawn again; -1 where none was found."""
    cumulative = np.cumsum(weights)
    wide = np.repeat(groups, num_negatives)

    def some(count: int) -> Int64s:
        places = np.searchsorted(cumulative, random.random(count) * cumulative[-1], side="right")
        chosen: Int64s = np.minimum(places, len(pool) - 1)
        return chosen

    places = some(len(wide))
    bad = np.flatnonzero(taken.contains(wide, pool[places]))
    for _ in range(MAX_REDRAWS):
        if len(bad) == 0:
            break
        places[bad] = some(len(bad))
        bad = bad[taken.contains(wide[bad], pool[places[bad]])]
    places[bad] = -1
    return places.reshape(len(groups), num_negatives)

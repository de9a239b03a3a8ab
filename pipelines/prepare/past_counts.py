"""Counting what happened earlier: events of keys in time order, asked for counts and last ones before a moment."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]


class PastCounts:
    """Events (key, time). Questions are about events strictly before a time; all arrays are (n,) int64.

    Args:
        keys: non-negative numbers.
        times: in any unit.

    Attributes:
        keys: the distinct ones, ascending.
        order: the events by key and time.
    """

    def __init__(self, keys: Int64s, times: Int64s) -> None:
        self._moments = np.unique(times)
        self.keys = np.unique(keys)
        self._width = len(self._moments) + 1
        composite = self._composite(keys, times)
        self.order = np.argsort(composite, kind="stable")
        self._sorted = composite[self.order]

    def _composite(self, keys: Int64s, times: Int64s) -> Int64s:
        """A number that sorts by (key, time): ranks, so that it cannot overflow. Unknown keys sort between."""
        ranks: Int64s = np.searchsorted(self.keys, keys) * self._width + np.searchsorted(self._moments, times)
        return ranks

    def before(self, keys: Int64s, times: Int64s) -> tuple[Int64s, Int64s]:
        """[first, last) into `order`: each key's events strictly before each time."""
        places = np.minimum(np.searchsorted(self.keys, keys), max(len(self.keys) - 1, 0))
        known = self.keys[places] == keys if len(self.keys) else np.zeros(len(keys), np.bool_)
        first = np.searchsorted(self._sorted, places * self._width)
        last = np.searchsorted(self._sorted, self._composite(keys, times))
        return first, np.where(known, last, first)

    def count(self, keys: Int64s, times: Int64s, since: Int64s | None = None) -> Int64s:
        """How many events of each key are in [since, time)."""
        first, last = self.before(keys, times)
        if since is not None:
            first = np.minimum(self.before(keys, since)[1], last)
        return last - first

"""`RecentIds`: which of the newest events were seen before, by their ids.

An event may be in the log twice: who sent it got no answer, and sent it again. It counts once as long as its id is
remembered, which is for the `size` newest events at least.

    recent (a set) --full--> new (sorted) --full--> old (sorted) --the next full one--> forgotten
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

SIZE = 1 << 19
_IN_SET = 1 << 14
_NONE = np.empty(0, np.int64)


class RecentIds:
    """64-bit hashes of ids, 8 to 16 bytes for each that is remembered. One thread at a time.

    Args:
        size: so many newest ones are known at least, twice as many at most.

    Example:
        >>> ids = RecentIds()
        >>> ids.take(np.array([7, 8, 7])).tolist(), ids.take(np.array([8, 9])).tolist()
        ([True, True, False], [False, True])
    """

    def __init__(self, size: int = SIZE) -> None:
        self._size = size
        self._recent: set[int] = set()
        self._new, self._old = _NONE, _NONE

    def take(self, ids: Int64s) -> Mask:
        """(n,) which ids are seen for the first time; all are known from now on."""
        values, first = np.unique(ids, return_index=True)
        fresh = ~(_is_in(self._new, values) | _is_in(self._old, values))
        listed = values.tolist()
        if not self._recent.isdisjoint(listed):  # seldom: events are new
            fresh &= np.fromiter((value not in self._recent for value in listed), np.bool_, len(values))
        self._recent.update(values[fresh].tolist())
        if len(self._recent) >= min(_IN_SET, self._size):
            self._settle()
        mask = np.zeros(len(ids), np.bool_)
        mask[first[fresh]] = True
        return mask

    def _settle(self) -> None:
        recent = np.sort(np.fromiter(self._recent, np.int64, len(self._recent)))
        # Two runs in order: a stable sort merges them.
        self._new = np.sort(np.concatenate([self._new, recent]), kind="stable")
        self._recent = set()
        if len(self._new) >= self._size:
            self._old, self._new = self._new, _NONE

    def arrays(self) -> dict[str, Int64s]:
        """All that is remembered, for a checkpoint."""
        recent = np.sort(np.fromiter(self._recent, np.int64, len(self._recent)))
        return {"recent_ids": recent, "new_ids": self._new, "old_ids": self._old}

    def load(self, arrays: Mapping[str, Int64s]) -> None:
        """Goes on from what `arrays` gave. Raises KeyError for other names."""
        self._recent = set(arrays["recent_ids"].tolist())
        self._new, self._old = np.sort(arrays["new_ids"]), np.sort(arrays["old_ids"])


def _is_in(known: Int64s, values: Int64s) -> Mask:
    """(n,) which values are in a sorted array."""
    if not len(known):
        return np.zeros(len(values), np.bool_)
    places = np.searchsorted(known, values)
    found: Mask = known[np.minimum(places, len(known) - 1)] == values
    return found

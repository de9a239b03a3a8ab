"""The clock of a fold: event time, never back, and never far ahead at once.

    clock = max(clock, min(median time of the batch, clock + longest step))

So a stray event moves nothing, and a stray batch moves it a bounded way. The first batch sets it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]


class FoldClock:
    """Microseconds of event time.

    Args:
        max_step_us: how far one batch moves the clock at most.
        now: where it stands; None: not set yet.
    """

    def __init__(self, max_step_us: int, now: int | None = None) -> None:
        self._max_step = max_step_us
        self.now = now
        self.held_back = 0
        """Batches whose time was beyond the longest step."""

    def observe(self, times: Int64s) -> None:
        """Moves with a batch of events; `times` (n,) int64 are theirs, of which the lower median counts."""
        if len(times) == 0:
            return
        place = (len(times) - 1) // 2
        median = int(np.partition(times, place)[place])
        if self.now is None:
            self.now = median
        elif median > self.now:
            self.held_back += median > self.now + self._max_step
            self.now = min(median, self.now + self._max_step)

    def advance(self, time: int) -> None:
        """Moves to a time, if that is later: of a log that is known to be in order."""
        self.now = time if self.now is None else max(self.now, time)

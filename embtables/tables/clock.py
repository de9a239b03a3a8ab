"""The clock of a table that expires rows: event time, never back, never far ahead at once.

clock = max(clock, min(median event time of the batch, clock + max_step)): one stray row moves nothing, a stray batch
moves it a bounded way, and both are counted. The first batch sets it.
"""

from __future__ import annotations

import torch
from torch import Tensor

MICROSECONDS = 1_000_000
LAST_SECOND = 2**32 - 1


class EventClock:
    """Seconds of event time.

    Args:
        max_step_seconds: how far one batch moves the clock at most.
        now: where it stands; 0: not set yet.
    """

    def __init__(self, max_step_seconds: int, now: int = 0) -> None:
        self._max_step = max_step_seconds
        self.now = now
        self.held_back = 0  # batches whose time was beyond the largest step
        self.late = 0  # batches from before the clock

    def observe(self, event_time_us: Tensor) -> int:
        """The clock after a batch with these event times (B,) int64 in microseconds; an empty batch moves nothing."""
        if len(event_time_us) == 0:
            return self.now
        median = int(torch.median(event_time_us)) // MICROSECONDS
        median = max(0, min(median, LAST_SECOND))
        if self.now == 0:
            self.now = median
        elif median < self.now:
            self.late += 1
        else:
            self.held_back += median > self.now + self._max_step
            self.now = min(median, self.now + self._max_step)
        return self.now

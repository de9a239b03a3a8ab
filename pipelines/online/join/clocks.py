"""Event time of a reader: a clock for each partition, and the watermark below which no more events are awaited.

clock = max(clock, min(median event time of the entry, clock + max_clock_step)); the first entry sets it. The watermark
is the least clock of the partitions that are not idle, or the greatest one if all are, and never goes back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping


class PartitionClocks:
    """Times are microseconds.

    Args:
        partitions: those that are read.
        max_step_us: how far one entry moves its partition's clock at most.
    """

    def __init__(self, partitions: Iterable[int], max_step_us: int) -> None:
        self._max_step_us = max_step_us
        self._clocks: dict[int, int | None] = dict.fromkeys(partitions)
        self._idle: set[int] = set()
        self._watermark: int | None = None

    def observe(self, partition: int, median_us: int | None) -> int | None:
        """The partition's clock after an entry whose events have this median time; it is not idle any more.

        Args:
            median_us: of those that may be right; None: there is none.
        """
        self._idle.discard(partition)
        clock = self._clocks[partition]
        if median_us is None:
            return clock
        moved = median_us if clock is None else max(clock, min(median_us, clock + self._max_step_us))
        self._clocks[partition] = moved
        return moved

    def set_idle(self, partition: int) -> None:
        """It does not hold the watermark until its next entry."""
        self._idle.add(partition)

    def watermark(self) -> int | None:
        """None as long as a partition that is not idle has had no event."""
        held = [clock for partition, clock in self._clocks.items() if partition not in self._idle]
        known = [clock for clock in (held or self._clocks.values()) if clock is not None]
        if known and len(known) >= len(held):
            reached = min(known) if held else max(known)
            self._watermark = reached if self._watermark is None else max(self._watermark, reached)
        return self._watermark

    def clock(self, partition: int) -> int | None:
        """A partition's clock; None: it has had no event."""
        return self._clocks[partition]

    def is_idle(self, partition: int) -> bool:
        """Whether a partition does not hold the watermark."""
        return partition in self._idle

    @property
    def reached(self) -> int | None:
        """The watermark as it was asked for last."""
        return self._watermark

    def load(self, clocks: Mapping[int, int | None], idle: Iterable[int], reached: int | None) -> None:
        """What these properties were.

        Args:
            reached: the least, if the partitions were read by several readers.
        """
        self._clocks |= clocks
        self._idle = set(idle)
        self._watermark = reached

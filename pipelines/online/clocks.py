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

    def clock(self, partition: int) -> int | None:
        """The partition's clock; None before its first event."""
        return self._clocks[partition]

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

    def save(self) -> tuple[dict[int, int], list[int], int | None]:
        """Clocks that are set, idle partitions, watermark."""
        clocks = {partition: clock for partition, clock in self._clocks.items() if clock is not None}
        return clocks, sorted(self._idle), self._watermark

    def load(self, clocks: Mapping[int, int], idle: Iterable[int], watermark: int | None) -> None:
        """What `save` gave. Raises ValueError where it names another partition."""
        idle = set(idle)
        unknown = (set(clocks) | idle) - set(self._clocks)
        if unknown:
            raise ValueError(f"has a clock of partition {min(unknown)}, which is not read")
        self._clocks |= clocks
        self._idle = idle
        self._watermark = watermark

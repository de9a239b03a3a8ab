"""A parquet log as a flow: its rows in the order of its files, once; `--speed` lets them come as time goes by."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from typing import Any

import torch

from embtables.pipelines.online.intervals import FlowItem
from embtables.pipelines.sources.epochs import Epoch, LogEpochs
from embtables.pipelines.training.rank_agreement import rank_0_says
from embtables.shard.world import World

_LONGEST_WAIT_SECONDS = 0.2


class LogFlow:
    """A `Flow` over one pass of a log.

    Args:
        epochs: hands out the rows in the order of the files, with one epoch.
        speed: seconds of event time for each second; None: as fast as they are trained on.
        is_asked_to_stop: ends a wait, if rank 0 is asked.
        world: the ranks, which wait together.
    """

    def __init__(
        self, epochs: LogEpochs, speed: float | None, is_asked_to_stop: Callable[[], bool], world: World
    ) -> None:
        self._world = world
        self._epochs = epochs
        self._speed = speed
        self._is_asked_to_stop = is_asked_to_stop
        self._epoch: Epoch | None = None

    reached_us: int | None = None

    @property
    def bad_files(self) -> Mapping[str, str]:
        """See Flow."""
        return self._epochs.bad_files

    @property
    def quarantined(self) -> Mapping[str, int]:
        """See Flow."""
        return {} if self._epoch is None else self._epoch.quarantined

    @property
    def total_rows_hint(self) -> int | None:
        """See Flow."""
        return None if self._epoch is None else self._epoch.total_rows_hint

    def items(self, position: Mapping[str, Any] | None) -> Generator[FlowItem, None, None]:
        """See Flow."""
        self._epoch = self._epochs.stretch(0, position)
        assert self._epoch is not None, "there is one epoch"
        pace = None if self._speed is None else _Pace(self._speed, self._is_asked_to_stop, self._world)
        for item in self._epoch:
            if pace is not None and item.batch.event_time_us is not None:
                times = torch.cat(self._world.all_gather(item.batch.event_time_us))
                if len(times):
                    pace.wait_for(int(torch.median(times)))
            yield item


class _Pace:
    """Holds a batch back until its time has come, counted from the first one."""

    def __init__(self, speed: float, is_asked_to_stop: Callable[[], bool], world: World) -> None:
        self._world = world
        self._speed = speed
        self._is_asked_to_stop = is_asked_to_stop
        self._begun: tuple[int, float] | None = None

    def wait_for(self, time_us: int) -> None:
        if self._begun is None:
            self._begun = time_us, time.monotonic()
        first, since = self._begun
        due = since + (time_us - first) / 1e6 / self._speed
        # Rank 0 says when: a rank that waited by itself would be silent for the others.
        while rank_0_says(self._world, lambda: due > time.monotonic() and not self._is_asked_to_stop()):
            time.sleep(min(max(0.0, due - time.monotonic()), _LONGEST_WAIT_SECONDS))

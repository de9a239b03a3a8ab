"""A parquet log as a flow: its rows in the order of its files, once; `--speed` lets them come as time goes by."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from typing import Any

import torch

from embtables.pipelines.online.intervals import FlowItem
from embtables.pipelines.sources.epochs import Epoch, LogEpochs

_LONGEST_WAIT_SECONDS = 0.2


class LogFlow:
    """A `Flow` over one pass of a log.

    Args:
        epochs: hands out the rows in the order of the files, with one epoch.
        speed: seconds of event time for each second; None: as fast as they are trained on.
        is_asked_to_stop: ends a wait.
    """

    def __init__(self, epochs: LogEpochs, speed: float | None, is_asked_to_stop: Callable[[], bool]) -> None:
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
        pace = None if self._speed is None else _Pace(self._speed, self._is_asked_to_stop)
        for item in self._epoch:
            if pace is not None and item.batch.event_time_us is not None and item.batch.num_rows:
                pace.wait_for(int(torch.median(item.batch.event_time_us)))
            yield item


class _Pace:
    """Holds a batch back until its time has come, counted from the first one."""

    def __init__(self, speed: float, is_asked_to_stop: Callable[[], bool]) -> None:
        self._speed = speed
        self._is_asked_to_stop = is_asked_to_stop
        self._begun: tuple[int, float] | None = None

    def wait_for(self, time_us: int) -> None:
        if self._begun is None:
            self._begun = time_us, time.monotonic()
        first, since = self._begun
        due = since + (time_us - first) / 1e6 / self._speed
        while (left := due - time.monotonic()) > 0 and not self._is_asked_to_stop():
            time.sleep(min(left, _LONGEST_WAIT_SECONDS))

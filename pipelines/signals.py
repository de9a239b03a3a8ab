"""Ctrl-C and SIGTERM ask a run to stop at its next batch; a second Ctrl-C stops at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

from embtables.errors import EmbtablesError


class InterruptedRunError(EmbtablesError):
    """The run was stopped by a signal after its state was saved."""


class StopRequest:
    """While entered, SIGINT and SIGTERM set `name` instead of ending the process."""

    def __init__(self) -> None:
        self.name: str | None = None
        self._former: dict[int, signal.Handlers | int | None] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._former[number] = signal.signal(number, self._handle)  # type: ignore[assignment]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.name is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.name = signal.Signals(number).name

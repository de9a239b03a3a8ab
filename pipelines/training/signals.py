"""Ctrl-C and SIGTERM ask a run to stop at its next batch; a second Ctrl-C stops at once.

If the run's processes do not get the signal themselves, a file in its folder asks them to stop.
"""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from types import FrameType, TracebackType

from embtables.errors import EmbtablesError


class InterruptedRunError(EmbtablesError):
    """The run was stopped by a signal after its state was saved."""


_LOOK_EVERY_SECONDS = 1.0


class StopRequest:
    """While entered, SIGINT and SIGTERM set `name` instead of ending the process.

    Args:
        file: as soon as it exists, it asks too.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.name: str | None = None
        self._file = file
        self._at_once = False
        self._looked = time.monotonic()
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

    def is_asked(self) -> bool:
        """Whether the run is to stop."""
        now = time.monotonic()
        if self._file is not None and self.name is None and now - self._looked >= _LOOK_EVERY_SECONDS:
            self._looked = now
            if self._file.exists():
                self.name = self._file.read_text(encoding="utf-8").strip() or "request"
        return self.name is not None

    def at_once(self) -> None:
        """From now on the first Ctrl-C stops at once, because nothing checks for a request any more."""
        self._at_once = True

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if (self.name is not None or self._at_once) and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.name = signal.Signals(number).name

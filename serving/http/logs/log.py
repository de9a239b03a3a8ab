"""What a server says of its requests: JSON lines without values of features.

    {"at": 1764300000.5, "event": "request", "request_id": "3f1c-2a", "route": "/v1/score", "status": 200, "size": 100,
     "dense_version": "serving-12", "row_version": "serving-13", "us": 1830, "stages_us": {"read": 40, ...}}

Slow requests have `"slow": true`. Refusals say which field was wrong, not what was in it; faults say where in the code.
"""

from __future__ import annotations

import time
import traceback
from typing import Any

import msgspec

from embtables.serving.http.exchange.call import Call
from embtables.serving.http.logs.lines import LineFile
from embtables.serving.settings import Settings


class Log:
    """The log of a server."""

    def __init__(self, settings: Settings) -> None:
        self._lines = LineFile(settings.log_file)
        self._all = settings.log_requests
        self._slow_seconds = settings.slow_ms * 1e-3

    def wants(self, seconds: float) -> bool:
        """Whether a good request that took so long gets a line."""
        return self._all or seconds >= self._slow_seconds

    def request(self, route: str, call: Call, status: int, seconds: float, field: str | None = None) -> None:
        """A request that was answered; quick good ones only where the settings ask for them."""
        slow = seconds >= self._slow_seconds
        if not (self._all or slow or status >= 400):
            return
        line: dict[str, Any] = {
            "at": time.time(),
            "event": "request",
            "request_id": call.request_id,
            "route": route,
            "status": status,
            "size": call.size,
            "us": round(seconds * 1e6),
            "stages_us": {stage: round(took) for stage, took in call.stages_us.items()},
        }
        if call.versions is not None:
            line |= {"dense_version": call.versions.dense, "row_version": call.versions.rows}
        if slow:
            line["slow"] = True
        if field is not None:
            line["field"] = field
        self._lines.put(msgspec.json.encode(line))

    def fault(self, call: Call, error: BaseException) -> None:
        """A fault of the server: its kind and where it was; not its text, which may hold values."""
        places = [
            f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)
        ]
        self.event("fault", request_id=call.request_id, kind=type(error).__name__, places=places[-12:])

    def event(self, event: str, **said: Any) -> None:
        """Anything else, such as the start and the end."""
        self._lines.put(msgspec.json.encode({"at": time.time(), "event": event, **said}))

    @property
    def dropped(self) -> int:
        """Lines that were not written."""
        return self._lines.dropped

    def close(self) -> None:
        """Writes what waits."""
        self._lines.close()

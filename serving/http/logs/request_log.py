"""A sample of requests with their scores, in a file that `embtables replay` scores again.

JSON lines, the oldest first; `<name>.1` is what was before `<name>`, `<name>.2` before that. Every line:

    {"request_id": "3f1c-2a", "at": 1764300000.5, "versions": {"dense": "serving-12", "rows": "serving-13"},
     "size": 2, "request": {"context": {...}, "candidates": [...]}, "scores": {"label": [0.1, 0.2]},
     "features": {"item": "96a1...", ...}}

`request` is a `wire.ScoreRequest` as JSON; of an Arrow stream its rows, under `rows`. It is there only where the server
keeps values (`request_log_values`), and `size` is the number of candidates or rows always. `at` is unix time.
`features` are digests of what the model read (`serving.trust.fingerprints`).
"""

from __future__ import annotations

import random
import time

import msgspec

from embtables.serving import wire
from embtables.serving.http.exchange.call import Call
from embtables.serving.http.logs.lines import LineFile
from embtables.serving.rows_request import RowsRequest
from embtables.serving.service import Request, Scored
from embtables.serving.settings import Settings


class RequestLog:
    """Writes the sample of a server's requests."""

    def __init__(self, settings: Settings) -> None:
        assert settings.request_log is not None
        self._rate = settings.request_log_rate
        self._with_values = settings.request_log_values
        self._lines = LineFile(
            settings.request_log, max_bytes=settings.request_log_max_bytes, kept=settings.request_log_files
        )
        self._random = random.Random()

    def draws(self) -> bool:
        """Whether the next request is in the sample."""
        return self._random.random() < self._rate

    @property
    def keeps_values(self) -> bool:
        """Whether lines have what was asked."""
        return self._with_values

    def put(self, call: Call, request: Request, answer: Scored, features: dict[str, str]) -> None:
        """Writes a request; `features`: see `Service.fingerprints`."""
        scores = {label: answer.scores[:, place].tolist() for place, label in enumerate(answer.labels)}
        logged = wire.LoggedRequest(
            call.request_id,
            time.time(),
            answer.versions,
            call.size,
            scores,
            None,
            features,
        )
        try:
            if self._with_values:
                logged.request = _as_json(request)
            line = msgspec.json.encode(logged)
        except (TypeError, ValueError, OverflowError):  # a value that JSON does not hold, such as a time in nanoseconds
            self._lines.drop(1)
            return
        self._lines.put(line)

    @property
    def dropped(self) -> int:
        """Requests of the sample that were not written."""
        return self._lines.dropped

    def close(self) -> None:
        """Writes what waits."""
        self._lines.close()


def _as_json(request: Request) -> wire.ScoreRequest:
    if isinstance(request, RowsRequest):
        return request.whole()
    return request if isinstance(request, wire.ScoreRequest) else wire.ScoreRequest(rows=request.to_pylist())

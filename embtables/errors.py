"""Errors a user can cause, each with the path to what is wrong, what was received and what to do.

`EmbtablesError` is the root: the command line prints it without a traceback. Errors hold data (`path`),
not only text, so that a caller can act on them.
"""

from __future__ import annotations

from typing import ClassVar


class EmbtablesError(Exception):
    """A failure with a known cause. `exit_status` is what the command line ends with.

    Args:
        message: what was wrong, what was received, and what to do.
        path: where, from outside in: `{"file": ..., "column": ..., "row": ...}`; keys in order.
    """

    exit_status: ClassVar[int] = 1

    def __init__(self, message: str, **path: object) -> None:
        self.message = message
        self.path: dict[str, object] = {k: v for k, v in path.items() if v is not None}
        super().__init__(message)

    def __str__(self) -> str:
        where = ", ".join(f"{key} {value}" for key, value in self.path.items())
        return f"{where}: {self.message}" if where else self.message


class ConfigError(EmbtablesError):
    """The configuration or the command line is wrong (exit status 2)."""

    exit_status = 2


class DataError(EmbtablesError):
    """The data is wrong: names file, column and row, if known."""


class BadFileError(DataError):
    """A data file cannot be read (truncated, damaged, not parquet)."""


class StateError(EmbtablesError):
    """A checkpoint is missing, damaged, or belongs to another schema."""


class EventLogError(EmbtablesError):
    """An event log cannot be reached, written or read, or a position is not one of it."""


class EventLogAwayError(EventLogError):
    """The server of an event log cannot be reached, or takes nothing for the moment: the same call may do later."""


class EventsLostError(EventLogError):
    """Events after a reader's position are no longer kept: the message names the first and the last that is lost."""


class WorldError(EmbtablesError):
    """The ranks of a run cannot train together: one is gone or silent, or there are too many."""


class TrainingError(EmbtablesError):
    """Training cannot go on: a loss, a weight or a score is not finite. Names the step, if known."""


class ServingError(EmbtablesError):
    """A request to a server has no answer.

    Attributes:
        request_id: what the server's logs call the request, if an answer came that says so.
    """

    def __init__(self, message: str, *, request_id: str | None = None, **path: object) -> None:
        super().__init__(message, **path)
        self.request_id = request_id


class RefusedError(ServingError):
    """The server has refused a request.

    Attributes:
        status: of HTTP: 400 not readable, 404 unknown name, 413 too long, 422 wrong values, 429 too many requests, 503
            not ready.
        field: the place in the request: `candidates.3.price`.
        retry_after_seconds: when the server says that it may answer.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        field: str | None = None,
        request_id: str | None = None,
        retry_after_seconds: float | None = None,
        **path: object,
    ) -> None:
        super().__init__(message, request_id=request_id, **path, status=status, field=field)
        self.status = status
        self.field = field
        self.retry_after_seconds = retry_after_seconds


class UnreachableError(ServingError):
    """There is no server at an address, or it broke the connection."""


class DeadlineError(ServingError):
    """No answer came before the deadline."""

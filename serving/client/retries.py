"""Which failures of a call are tried again, and when: never after its deadline.

Every request is a read, or appends events that have ids, so that one that may have been answered can be sent again.
"""

from __future__ import annotations

import random
import time

import httpcore
import httpx

from embtables.errors import ConfigError, DeadlineError, RefusedError, UnreachableError
from embtables.given import as_integer, shown

_FIRST_WAIT_SECONDS = 0.05
_LONGEST_WAIT_SECONDS = 2.0
_BUSY = (429, 503)


def as_deadline(given: float, argument: str = "deadline_seconds") -> float:
    """Seconds. Raises ConfigError for anything but a number above 0."""
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 < given < float("inf"):
        raise ConfigError(f"must be seconds above 0, received {shown(given)}", argument=argument)
    return float(given)


def as_attempts(given: int) -> int:
    """How often a call is tried at most. Raises ConfigError below 1."""
    return as_integer(given, "attempts", least=1)


class Backoff:
    """For stamina: how many seconds to wait after a failure; False: it is final.

    A connection that was refused or broke, 429 and 503 are tried again: after what `Retry-After` says, or after a time
    that doubles, drawn at random so that many clients do not come back together.

    Args:
        end: the call's deadline, of `time.monotonic()`.

    Attributes:
        last: the failure after which the call was tried again; None: it was not.
    """

    def __init__(self, end: float) -> None:
        self._end, self._failures = end, 0
        self.last: Exception | None = None

    def __call__(self, error: Exception) -> bool | float:
        """See above."""
        asked = None
        if isinstance(error, RefusedError):
            if error.status not in _BUSY:
                return False
            asked = error.retry_after_seconds
        elif not isinstance(error, UnreachableError):
            return False
        elif not self._failures and not isinstance(error.__cause__, httpcore.ConnectError | httpx.ConnectError):
            asked = 0.0  # most likely one that was kept open and is closed by now; another one will do
        limit = min(_LONGEST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * 2**self._failures)
        self._failures += 1
        seconds = random.uniform(limit / 2, limit) if asked is None else asked
        if time.monotonic() + seconds >= self._end:
            return False
        self.last = error
        return seconds

    def said_before(self, error: DeadlineError) -> DeadlineError:
        """A deadline's error, with what went wrong before it."""
        if self.last is None:
            return error
        return DeadlineError(f"{error.message}; before that: {self.last}", server=error.path.get("server"))

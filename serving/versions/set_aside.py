"""Versions that were set aside: why, how many, the last ones; each is logged once."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from typing import Literal, get_args

from embtables.errors import EmbtablesError
from embtables.serving import wire

Kind = Literal["damaged", "gap", "schema", "values", "other"]
"""damaged: a file or manifest is not as it was written, or cannot be read; gap: a version before it is missing; schema:
it is of another one; values: not finite, rows too long, a clock that goes back."""
KINDS: tuple[Kind, ...] = get_args(Kind)

_KEPT = 32
_KNOWN = 4096
_log = logging.getLogger("embtables.serving.versions")


class SetAside:
    """Versions that were set aside since the server began; one thread adds, any reads."""

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._last: deque[wire.RejectedDelta] = deque(maxlen=_KEPT)
        self._counts: Counter[str] = Counter()
        self._known: dict[str, None] = {}  # in the order in which they came

    def add(self, version: str, folder: str, kind: Kind, error: EmbtablesError | str) -> None:
        """Notes a version, once however often it is met: it is known by its folder, or where that cannot be read by
        its name.
        """
        with self._lock:
            if (mark := folder or version) in self._known:
                return
            self._known[mark] = None
            if len(self._known) > _KNOWN:
                del self._known[next(iter(self._known))]
            self._counts[kind] += 1
            self._last.append(wire.RejectedDelta(version, kind, str(error), time.time()))
            self._lock.notify_all()
        _log.warning(
            "version %s is set aside (%s): %s", version, kind, error, extra={"version": version, "reason": kind}
        )

    def wait(self, count: int, seconds: float) -> bool:
        """Waits at most `seconds` until so many were set aside in all; whether they were."""
        with self._lock:
            return self._lock.wait_for(lambda: self._counts.total() >= count, seconds)

    @property
    def counts(self) -> dict[str, int]:
        """How many by kind, all kinds."""
        with self._lock:
            return {kind: self._counts[kind] for kind in KINDS}

    @property
    def last(self) -> list[wire.RejectedDelta]:
        """The last ones, the newest last."""
        with self._lock:
            return list(self._last)

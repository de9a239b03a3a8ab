"""`Live`: the version that answers, swapped whole, and requests that must not see one before another."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable

from embtables.serving import wire
from embtables.serving.refusals import Refusal
from embtables.serving.versions.served_version import ServedVersion

_NAME = re.compile(r"(resume|serving)-([0-9]{1,10})")
_RETRY_SECONDS = 1

Place = tuple[bool, int]
"""Of a version in the order in which a server shows them: those for serving come after a run's checkpoints."""


def place_of(name: str, field: str | None = None) -> Place:
    """Where a version is in the order. Raises Refusal 422 if this is no version's name; `field`: where it was given."""
    found = _NAME.fullmatch(name)
    if found is None:
        raise Refusal(422, f"a version is named like serving-12, received {name[:60]!r}", field)
    return found[1] == "serving", int(found[2])


class Live:
    """The version that answers. One writer puts; any thread reads `current` once for each request and keeps it.

    Attributes:
        current: None until there is one.
        is_held: an operator keeps it where it is (pinned, paused), so that waiting brings no newer one.
    """

    def __init__(self) -> None:
        self.current: ServedVersion | None = None
        self.is_held = False
        self._changed = threading.Condition()
        self._wakers: set[Callable[[], None]] = set()

    def prepare(self, version: ServedVersion) -> None:
        """Called with a version before its rows are applied and it is put, while the one before answers: what a version
        takes to answer is made here by whoever scores. An EmbtablesError sets the version aside.
        """

    def put(self, version: ServedVersion) -> None:
        """From now on requests are answered with this version. Its rows are all in its tables."""
        with self._changed:
            # Rows first: a request that sees the version sees that its rows are there.
            version.applied.version = version.name
            version.applied.is_changing = False
            self.current = version
            self._changed.notify_all()
            wakers = list(self._wakers)
        for wake in wakers:
            wake()

    def wait(self, seconds: float, least: str | None = None) -> ServedVersion | None:
        """The current version; waits at most `seconds` for the first one, or for one not older than `least`.

        Not for the thread of an event loop: see `reach`.
        """
        place = None if least is None else place_of(least)

        def is_there() -> bool:
            return self.current is not None and (place is None or place_of(self.current.name) >= place)

        with self._changed:
            self._changed.wait_for(is_there, seconds)
            return self.current

    def at_least(self, dense: str | None = None, rows: str | None = None) -> ServedVersion:
        """The current version, for a request that has seen another one.

        A server that was killed begins at the newest whole version on disk; what a client has seen may be newer. So a
        client that sends the last version that it saw is not answered with an older one.

        Args:
            dense: the header MIN_DENSE_VERSION: the answer must not be of dense weights older than this.
            rows: the header MIN_ROW_VERSION, the same of rows.

        Raises:
            Refusal: 503, with seconds to retry after: there is no version yet, or it is an older one; 409: an operator
                keeps the server at an older one; 422: these are no versions.
        """
        found = self.current
        if found is None:
            raise Refusal(503, "no version is loaded yet; ask again", retry_after=_RETRY_SECONDS)
        for least, name, field in (
            (dense, found.name, wire.MIN_DENSE_VERSION),
            (rows, found.row_version, wire.MIN_ROW_VERSION),
        ):
            if least is not None and place_of(name) < place_of(least, field):
                raise self._too_old(name, least, field)
        return found

    def _too_old(self, name: str, least: str, field: str) -> Refusal:
        if self.is_held:
            reason = f"an operator keeps this server at {name}, before {least}; ask without {field} to be answered"
            return Refusal(409, reason, field)
        reason = f"this server is at {name} and has not come to {least} yet; ask again"
        return Refusal(503, reason, field, retry_after=_RETRY_SECONDS)

    async def reach(self, dense: str | None = None, rows: str | None = None, seconds: float = 1.0) -> ServedVersion:
        """As `at_least`, but waits at most `seconds` for the version before it refuses with 503."""
        loop, event = asyncio.get_running_loop(), asyncio.Event()
        end = loop.time() + seconds

        def wake() -> None:
            try:
                loop.call_soon_threadsafe(event.set)
            except RuntimeError:
                return  # the loop has ended, and so has the request

        while True:
            event.clear()
            self._wakers.add(wake)
            try:
                return self.at_least(dense, rows)
            except Refusal as refusal:
                if refusal.status != 503 or loop.time() >= end:
                    raise
                try:
                    await asyncio.wait_for(event.wait(), end - loop.time())
                except TimeoutError:
                    raise refusal from None
            finally:
                self._wakers.discard(wake)

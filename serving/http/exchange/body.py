"""Reads the bodies of requests, and counts them while it reads: by length, together, and by time.

The server below (granian) reads heads within a deadline and bodies without one, so that is here. A request costs one
entry in a dictionary for it; a sweep, a few times in a deadline while bodies are read, ends what is late.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol, TypeAlias

from granian.rsgi import ProtocolClosed  # type: ignore[attr-defined]

from embtables.serving.refusals import Refusal

Receive: TypeAlias = Callable[[], Awaitable[Any]]
_SHORT = 65_536  # a body that says that it is no longer is read whole


class Gone(Exception):  # noqa: N818 - nothing is wrong here
    """Raised where a client has closed its connection: nobody reads an answer."""


LEFT = (Gone, ProtocolClosed)  # what reading a body raises where a client has left


class Source(Protocol):
    """Where a body comes from: granian's protocol object is one."""

    def __call__(self) -> Awaitable[bytes]:
        """All of it."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """It in parts."""


class AsgiSource:
    """A body that ASGI's `receive` brings."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive

    async def __call__(self) -> bytes:
        """See Source."""
        return b"".join([part async for part in self])

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """See Source. Raises Gone."""
        is_more = True
        while is_more:
            message = await self._receive()
            if message["type"] != "http.request":
                raise Gone
            yield message.get("body", b"")
            is_more = message.get("more_body", False)


class Bodies:
    """The bodies that one event loop reads.

    Args:
        max_bytes: of one.
        max_buffered: of all longer ones that are being read, together.
        seconds: from a request's head until its body is here.
    """

    def __init__(self, max_bytes: int, max_buffered: int, seconds: float) -> None:
        self._max_bytes = max_bytes
        self._max_buffered = max_buffered
        self._seconds = seconds
        self._buffered = 0
        self._began: dict[asyncio.Task[Any], float] = {}
        self._overdue: set[asyncio.Task[Any]] = set()
        self._late: set[asyncio.Task[Any]] = set()
        self._sweep: asyncio.TimerHandle | None = None

    async def read(self, headers: dict[str, str], source: Source) -> bytes:
        """The whole body.

        Raises:
            Refusal: 400 its length is no number, 408 too slow, 413 too long, 415 compressed, 503 too many at once.
            Gone: the client has left.
        """
        if "content-encoding" in headers and headers["content-encoding"] != "identity":
            raise Refusal(415, "a compressed body is not read: send it without Content-Encoding")
        return await self.read_of(self._length(headers), source)

    async def read_of(self, length: int | None, source: Source) -> bytes:
        """The same of a head that was checked; `length` is what it says of the body's, None: nothing."""
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        self._began[task] = loop.time()
        if self._sweep is None:
            self._sweep = loop.call_later(self._period(), self._end_late, loop)
        try:
            body = await (source() if length is not None and length <= _SHORT else self._in_parts(source))
        except asyncio.CancelledError:
            if task not in self._late:
                raise
            self._late.discard(task)
            task.uncancel()
            raise Refusal(408, f"the body was not here within {self._seconds:g} seconds") from None
        finally:
            del self._began[task]
            self._overdue.discard(task)
        if length is not None and len(body) < length:
            raise Gone
        return body

    def _length(self, headers: dict[str, str]) -> int | None:
        """What a head says of its body's length; None: nothing."""
        text = headers.get("content-length")
        if text is None:
            return None if "transfer-encoding" in headers else 0
        if not text.isascii() or not text.isdigit() or len(text) > 18:
            raise Refusal(400, "Content-Length is no number")
        length = int(text)
        if length > self._max_bytes:
            raise self._too_long()
        return length

    async def _in_parts(self, source: Source) -> bytes:
        parts, total = [], 0
        try:
            async for part in source:
                parts.append(part)
                total += len(part)
                self._buffered += len(part)
                if total > self._max_bytes:
                    raise self._too_long()
                if self._buffered > self._max_buffered:
                    raise Refusal(503, "too many bodies are being read; try again", retry_after=1)
            return b"".join(parts)
        finally:
            self._buffered -= total

    def _too_long(self) -> Refusal:
        return Refusal(413, f"a body has at most {self._max_bytes:,} bytes; ask in several requests")

    def _period(self) -> float:
        return min(1.0, self._seconds / 4)

    def _end_late(self, loop: asyncio.AbstractEventLoop) -> None:
        since = loop.time() - self._seconds
        for task, began in self._began.items():
            if began > since:
                break  # in the order of their beginning
            if task not in self._overdue:
                # An event loop that is busy may not have come to what is here already: it has until the next sweep.
                self._overdue.add(task)
            elif task not in self._late:
                self._late.add(task)
                task.cancel()
        self._sweep = loop.call_later(self._period(), self._end_late, loop) if self._began else None

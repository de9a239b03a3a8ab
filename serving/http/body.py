"""Reads the bodies of requests, and counts them while it reads: by length, together, and by time.

The server below (granian) reads heads within a deadline and bodies without one, so that is here. A request costs one
entry in a dictionary for it; a sweep, once a second while bodies are read, ends what is late.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from embtables.serving.refusals import Refusal

Receive: TypeAlias = Callable[[], Awaitable[Any]]


class Gone(Exception):  # noqa: N818 - nothing is wrong here
    """Raised where a client has closed its connection: nobody reads an answer."""


class Bodies:
    """The bodies that one event loop reads.

    Args:
        max_bytes: of one.
        max_buffered: of all that are being read, together.
        seconds: from a request's head until its body is here.
    """

    def __init__(self, max_bytes: int, max_buffered: int, seconds: float) -> None:
        self._max_bytes = max_bytes
        self._max_buffered = max_buffered
        self._seconds = seconds
        self._buffered = 0
        self._began: dict[asyncio.Task[Any], float] = {}
        self._late: set[asyncio.Task[Any]] = set()
        self._sweep: asyncio.TimerHandle | None = None

    async def read(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        """The whole body.

        Raises:
            Refusal: 400 its length is no number, 408 too slow, 413 too long, 415 compressed, 503 too many at once.
            Gone: the client has left.
        """
        if headers.get(b"content-encoding", b"identity") != b"identity":
            raise Refusal(415, "a compressed body is not read: send it without Content-Encoding")
        if (length := headers.get(b"content-length")) is not None:
            if not length.isdigit() or len(length) > 18:
                raise Refusal(400, "Content-Length is no number")
            if int(length) > self._max_bytes:
                raise self._too_long()
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        self._began[task] = loop.time()
        if self._sweep is None:
            self._sweep = loop.call_later(self._period(), self._end_late, loop)
        try:
            return await self._read(receive)
        except asyncio.CancelledError:
            if task not in self._late:
                raise
            self._late.discard(task)
            task.uncancel()
            raise Refusal(408, f"the body was not here within {self._seconds:g} seconds") from None
        finally:
            del self._began[task]

    async def _read(self, receive: Receive) -> bytes:
        message = await receive()
        if message["type"] != "http.request":
            raise Gone
        first: bytes = message.get("body", b"")
        if not message.get("more_body"):
            if len(first) > self._max_bytes:
                raise self._too_long()
            return first
        parts, total = [first], len(first)
        self._buffered += total
        try:
            while message.get("more_body"):
                if total > self._max_bytes:
                    raise self._too_long()
                if self._buffered > self._max_buffered:
                    raise Refusal(503, "too many bodies are being read; try again", retry_after=1)
                message = await receive()
                if message["type"] != "http.request":
                    raise Gone
                parts.append(message.get("body", b""))
                total += len(parts[-1])
                self._buffered += len(parts[-1])
            if total > self._max_bytes:
                raise self._too_long()
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
            if task not in self._late:
                self._late.add(task)
                task.cancel()
        self._sweep = loop.call_later(self._period(), self._end_late, loop) if self._began else None

"""Bare granian: takes a body and answers always the same bytes. What no server in front of it can beat."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any

ANSWER = bytes(int(os.environ.get("ANSWER_BYTES", "0")))
HEADERS = [(b"content-type", b"application/octet-stream"), (b"content-length", str(len(ANSWER)).encode())]


async def app(
    scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    """An ASGI application."""
    if scope["type"] != "http":
        return
    more = True
    while more:
        more = (await receive()).get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": ANSWER})

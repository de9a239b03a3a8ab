"""Bare granian: takes a body and answers always the same bytes, over the same interface as our server (RSGI)."""

from __future__ import annotations

import os
from typing import Any

ANSWER = bytes(int(os.environ.get("ANSWER_BYTES", "0")))
HEADERS = [("content-type", "application/octet-stream")]


async def app(scope: Any, protocol: Any) -> None:
    """An RSGI application."""
    if scope.proto != "http":
        return
    await protocol()
    protocol.response_bytes(200, HEADERS, ANSWER)

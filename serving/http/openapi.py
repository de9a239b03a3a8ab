"""`/openapi.json`."""

from __future__ import annotations

from typing import Any


def openapi() -> dict[str, Any]:
    """The document."""
    return {}

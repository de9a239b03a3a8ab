"""JSON of a state folder, parsed within bounds."""

from __future__ import annotations

import json
from typing import Any

MAX_DEPTH = 64
"""How deep JSON may be nested: whatever walks through it afterwards must not run out of stack."""


def parse_json(raw: bytes) -> Any:
    """A JSON value. Raises ValueError for what is not JSON, or nested deeper than `MAX_DEPTH`."""
    try:
        value = json.loads(raw)
    except RecursionError:
        raise ValueError("is nested too deep") from None
    except ValueError:
        raise ValueError("is not JSON") from None
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return value
    raise ValueError("is nested too deep")

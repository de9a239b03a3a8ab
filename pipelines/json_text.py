"""JSON as everything of a run writes it: figures that are not finite are null, because JSON has no NaN."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def json_text(value: Any, *, indent: int | None = None) -> str:
    """`value` as JSON; numbers that are not finite become null: such a figure is undefined."""
    return json.dumps(_defined(value), indent=indent, allow_nan=False)


def _defined(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _defined(each) for key, each in value.items()}
    return [_defined(each) for each in value] if isinstance(value, list | tuple) else value

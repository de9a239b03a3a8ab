"""Names and paths."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from embtables.errors import ConfigError


def as_name(given: Any, argument: str) -> str:
    """A name. Raises ConfigError if it is no string, or empty."""
    if not isinstance(given, str) or not given:
        raise ConfigError(f"must be a name, received {given!r:.60}", argument=argument)
    return given


def as_path(given: Any, argument: str) -> Path:
    """A path. Raises ConfigError if it is neither a string nor a path, or empty."""
    if not isinstance(given, str | os.PathLike) or not isinstance(os.fspath(given), str) or not os.fspath(given):
        raise ConfigError(f"must be a path, received {given!r:.60}", argument=argument)
    return Path(given)

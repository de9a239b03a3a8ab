"""What callers give that is no column of values: names, paths, switches, choices and objects; refused by argument.

The other half, ids and rows, is in `embtables.arguments`, which imports torch; this does not.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any

from embtables.errors import ConfigError


def as_name(given: Any, argument: str) -> str:
    """A name. Raises ConfigError if it is no string, or empty."""
    if not isinstance(given, str) or not given:
        raise ConfigError(f"must be a name, received {shown(given)}", argument=argument)
    return given


def as_path(given: Any, argument: str) -> Path:
    """A path. Raises ConfigError if it is neither a string nor a path, empty, or no path that a system could have."""
    text = os.fspath(given) if isinstance(given, str | os.PathLike) else None
    if not isinstance(text, str) or not text or "\0" in text:
        raise ConfigError(f"must be a path, received {shown(given)}", argument=argument)
    return Path(text)


def as_names(given: Any, argument: str) -> tuple[str, ...]:
    """Names, from a list of strings or anything that gives strings. Raises ConfigError for anything else.

    >>> as_names(["user", "item"], "columns")
    ('user', 'item')
    >>> as_names("user", "columns")
    Traceback (most recent call last):
    embtables.errors.ConfigError: argument columns: must be a list of names, received 'user'
    """
    if not isinstance(given, Iterable) or isinstance(given, str | bytes | os.PathLike):
        raise ConfigError(f"must be a list of names, received {shown(given)}", argument=argument)
    try:
        found = tuple(given)
    except TypeError:  # an array of no dimensions
        raise ConfigError(f"must be a list of names, received {shown(given)}", argument=argument) from None
    for each in found:
        if not isinstance(each, str):
            raise ConfigError(f"must be a list of names, received {shown(each)} in it", argument=argument)
    return tuple(map(str, found))  # numpy's strings are subclasses


def as_flag(given: Any, argument: str) -> bool:
    """True or false. Raises ConfigError for anything but a bool, numpy's included."""
    if isinstance(given, bool) or type(given).__name__ in ("bool_", "bool"):
        return bool(given)
    raise ConfigError(f"must be True or False, received {shown(given)}", argument=argument)


def as_integer(given: Any, argument: str, *, least: int | None = None) -> int:
    """One integer, exactly.

    Raises:
        ConfigError: it is none, or below `least`.
    """
    try:
        found = None if isinstance(given, bool) else operator.index(given)
    except (TypeError, ValueError, RuntimeError):
        found = None
    if found is None or (least is not None and found < least):
        needed = "an integer" if least is None else f"an integer from {least} on"
        raise ConfigError(f"must be {needed}, received {shown(given)}", argument=argument)
    return found


def as_choice(given: Any, choices: Collection[str], argument: str) -> Any:
    """One of some words. Raises ConfigError for anything else."""
    if not isinstance(given, str) or given not in choices:
        raise ConfigError(f"must be one of {', '.join(choices)}, received {shown(given)}", argument=argument)
    return given


def need(given: object, kind: type | UnionType, argument: str, needed: str) -> None:
    """Raises ConfigError if an object is of another kind; `needed`: `a Schema`."""
    if not isinstance(given, kind):
        raise ConfigError(f"must be {needed}, received {shown(given)}", argument=argument)


def need_iterable(given: object, argument: str, needed: str) -> None:
    """Raises ConfigError if nothing can be taken from it one after the other."""
    try:
        iter(given)  # type: ignore[call-overload]
    except TypeError:
        raise ConfigError(f"must be {needed}, received {shown(given)}", argument=argument) from None


def need_all(given: object, kind: type | UnionType, argument: str, needed: str) -> None:
    """Raises ConfigError if it is no list, or an object in it is of another kind; `needed`: `Feature`."""
    if not isinstance(given, Sequence) or isinstance(given, str | bytes):
        raise ConfigError(f"must be a list of {needed}, received a {type(given).__name__}", argument=argument)
    for place, each in enumerate(given):
        if not isinstance(each, kind):
            reason = f"must be a list of {needed}, received a {type(each).__name__} at {place}"
            raise ConfigError(reason, argument=argument)


def need_mapping(given: object, argument: str, needed: str) -> None:
    """Raises ConfigError if it is no dictionary or the like."""
    need(given, Mapping, argument, needed)


def shown(given: object) -> str:
    """An object in an error: a short value as it is, of others the type."""
    if given is None or isinstance(given, bool | int | float | str | bytes | os.PathLike):
        text = repr(given)
        return text if len(text) <= 60 else text[:57] + "..."
    return f"a {type(given).__name__}" if not isinstance(given, type) else f"the class {given.__name__}"

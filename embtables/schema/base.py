"""The strict base of every configuration model, and the wording of its errors.

A model is frozen, refuses unknown keys (with "did you mean"), and its validation errors become one
`ConfigError` whose lines carry the path to each wrong value: `features.3.max_length: ...`.
"""

from __future__ import annotations

import difflib
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from embtables.errors import ConfigError

Name = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_.\-]*$", max_length=128),
    Field(description="A name: letters, digits, '_', '.', '-'; no path separators."),
]


class Model(BaseModel):
    """A frozen pydantic model that refuses unknown keys and suggests the nearest known one.

    One that is made in Python raises ConfigError as one that is read from a file does; only `model_validate` and its
    like, which are pydantic's own, raise its ValidationError.

        >>> from embtables.schema import Feature
        >>> Feature(name="item", tabel="item")
        Traceback (most recent call last):
        embtables.errors.ConfigError: Feature: unknown key 'tabel'; did you mean 'table'?
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())

    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise config_error(error, type(self).__name__) from error

    # Without it pydantic would call __init__ for what lies within another model, whose error is to name the whole path.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        known = [field.alias or name for name, field in cls.model_fields.items()]
        for key in value:
            if key in known:
                continue
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.6)
            hint = f"did you mean '{near[0]}'?" if near else "known keys: " + ", ".join(sorted(known))
            raise PydanticCustomError("unknown_key", "unknown key '{key}'; {hint}", {"key": str(key), "hint": hint})
        return value


def config_error(error: ValidationError, *above: str, **path: object) -> ConfigError:
    """One `ConfigError` for a pydantic `ValidationError`: a line for each wrong value, with its path below `above`."""
    lines = error_lines(error, *above)
    text = lines[0] if len(lines) == 1 else "\n  ".join([f"{len(lines)} values are wrong:", *lines])
    return ConfigError(text, **path)


def error_lines(error: ValidationError, *above: str) -> list[str]:
    """A line for each wrong value: its path (below `above`), what is wrong with it and what was received."""
    lines = []
    for item in error.errors(include_url=False):
        where = ".".join([*above, *(str(part) for part in item["loc"] if not _is_tag(str(part)))])
        message = item["msg"].removeprefix("Value error, ")
        shown = "" if item["type"] in ("unknown_key", "missing") else f" (received {_short(item['input'])})"
        lines.append(f"{where}: {message}{shown}" if where else f"{message}{shown}")
    return lines


_TAGS = ("fixed", "collisionless", "one-number", "list-of-numbers", "dense-decay")


def _is_tag(part: str) -> bool:
    """Whether part of a path names a branch that pydantic took and not a key of the file."""
    return part.startswith("function-") or part in _TAGS


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."

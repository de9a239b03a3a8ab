"""The small JSON files beside versions: who may write (`lease.json`), and which versions stay (`pins/*.json`)."""

from __future__ import annotations

import json
from typing import Annotated, TypeVar

from pydantic import Field, ValidationError

from embtables.errors import StateError
from embtables.schema.base import Model, config_error
from embtables.state.format.json_values import parse_json
from embtables.state.format.manifest import Purpose, Sequence

MAX_BYTES = 1 << 16

_M = TypeVar("_M", bound=Model)


class Lease(Model):
    """Who may write: `holder` says who that is, `epoch` is the lease number, which rises with each holder."""

    epoch: Annotated[int, Field(strict=True, ge=0, lt=2**62)]
    holder: Annotated[str, Field(strict=True, max_length=1000)]


class Pin(Model):
    """The version that a pin keeps."""

    purpose: Purpose
    sequence: Sequence


def encode(value: Model) -> bytes:
    """The bytes of such a file."""
    return json.dumps(value.model_dump()).encode()


def decode(raw: bytes, kind: type[_M], file: object) -> _M:
    """What such a file says.

    Raises:
        StateError: it is damaged: no JSON, or another than that of its kind; `file` is named.
    """
    try:
        return kind.model_validate(parse_json(raw))
    except ValidationError as error:
        raise StateError(f"is damaged: {config_error(error)}", file=file) from None
    except ValueError as error:
        raise StateError(f"is damaged: {error}", file=file) from None

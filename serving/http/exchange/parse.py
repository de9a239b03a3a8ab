"""Bodies -> `wire` requests, with their sizes capped and their values looked at before anything is computed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import msgspec
import numpy as np
import numpy.typing as npt

from embtables.serving import wire
from embtables.serving.http.exchange.call import Call
from embtables.serving.refusals import Refusal, hint
from embtables.serving.rows_request import RowsRequest, read_rows_request
from embtables.serving.settings import Settings

_UNKNOWN_FIELD = re.compile(r"Object contains unknown field `(.*?)`")
_PLACE = re.compile(r" - at `\$\.?(.*)`$")
_SHORT = 60
MAX_TEXT = 65_536  # of one string

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Caps:
    """Sizes of a request."""

    candidates: int
    ids: int
    list_length: int

    @classmethod
    def of(cls, settings: Settings) -> Caps:
        """Those of a server's settings."""
        return cls(settings.max_candidates, settings.max_ids, settings.max_list_length)


def decode(kind: type[T], body: bytes) -> T:
    """A JSON body as one of the wire's types.

    Raises:
        Refusal: 400 it is no JSON; 422 with the field: it is JSON of another shape, or has an unknown field.
    """
    try:
        return _decoder(kind).decode(body)
    except msgspec.ValidationError as error:
        raise _misfit(kind, str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refusal(400, f"the body is no JSON: {error}") from None
    except RecursionError:
        raise Refusal(400, "the body is no JSON that is read here: too many brackets within each other") from None


_decoders: dict[type, msgspec.json.Decoder[Any]] = {}


def _decoder(kind: type[T]) -> msgspec.json.Decoder[T]:
    if kind not in _decoders:
        _decoders[kind] = msgspec.json.Decoder(kind)
    return _decoders[kind]


def _misfit(kind: type, text: str) -> Refusal:
    place = _PLACE.search(text)
    field = place[1].replace("[...]", "").replace("[", ".").replace("]", "") or None if place else None
    message = _PLACE.sub("", text)
    if (found := _UNKNOWN_FIELD.match(message)) is not None:
        known = [each.encode_name for each in msgspec.structs.fields(kind)]
        name = found[1] if len(found[1]) <= _SHORT else found[1][: _SHORT - 3] + "..."
        return Refusal(422, f"there is no field '{name}' in a request; {hint(name, known)}", name)
    return Refusal(422, message[:1].lower() + message[1:].replace("`", ""), field)


def score_request(call: Call, caps: Caps) -> wire.ScoreRequest:
    """What to score.

    Raises:
        Refusal: 400, 422 with the field.
    """
    request = decode(wire.ScoreRequest, call.body)
    if request.request_id is not None:
        call.name(request.request_id, "request_id")
    rows, field = (request.candidates, "candidates") if request.rows is None else (request.rows, "rows")
    if rows is None:
        raise Refusal(422, "give candidates (with a context that they share), or rows", "candidates")
    if request.rows is not None and (request.candidates is not None or request.context):
        other = "candidates" if request.candidates is not None else "context"
        raise Refusal(422, f"give rows, which are whole, or candidates and context; received rows and {other}", other)
    call.size = len(rows)
    if not rows:
        raise Refusal(422, "has no entry: there is nothing to score", field)
    if len(rows) > caps.candidates:
        raise Refusal(422, f"has {len(rows):,} entries, at most {caps.candidates:,} are taken: ask in parts", field)
    check_values(request.context, "context", caps)
    for place, row in enumerate(rows):
        if isinstance(row, dict):
            check_values(row, f"{field}.{place}", caps)
        elif not isinstance(row, int | str) or isinstance(row, bool):
            raise Refusal(422, "a candidate is an object of columns, or an id (integer or string)", f"{field}.{place}")
        elif isinstance(row, int):
            _check_integer(row, f"{field}.{place}")
    return request


def rows_request(call: Call, caps: Caps) -> RowsRequest | wire.ScoreRequest:
    """The same, its rows as columns where most are so. Raises as `score_request`."""
    request = read_rows_request(call.body)
    if request is None or request.rows.num_rows > caps.candidates:
        return score_request(call, caps)
    if request.request_id is not None:
        call.name(request.request_id, "request_id")
    call.size = request.rows.num_rows
    check_values(request.context, "context", caps)
    return request


def check_values(row: Mapping[str, Any], place: str, caps: Caps) -> None:
    """Values are numbers, strings, truths, nulls or lists of these; numbers have 64 bits."""
    for name, value in row.items():
        kind = type(value)
        if value is None or kind is bool or kind is float:
            continue
        if kind is str:
            if len(value) > MAX_TEXT:
                reason = f"has {len(value):,} characters, at most {MAX_TEXT:,} are taken"
                raise Refusal(422, reason, f"{place}.{name}"[:200])
            continue
        if kind is int:
            if not -(2**63) <= value < 2**64:
                _check_integer(value, f"{place}.{name}")
        elif kind is list:
            if len(value) > caps.list_length:
                raise Refusal(
                    422, f"has {len(value):,} entries, at most {caps.list_length:,} are taken", f"{place}.{name}"
                )
            _check_entries(value, f"{place}.{name}")
        else:
            raise Refusal(422, "a value is a number, a string, true, false, null or a list of these", f"{place}.{name}")


def _check_entries(values: list[Any], place: str) -> None:
    for number, value in enumerate(values):
        kind = type(value)
        if kind is int:
            if not -(2**63) <= value < 2**64:
                _check_integer(value, f"{place}.{number}")
        elif kind is list or kind is dict:
            raise Refusal(422, "an entry of a list is a number, a string or null", f"{place}.{number}")


def _check_integer(value: int, place: str) -> None:
    if not -(2**63) <= value < 2**64:
        raise Refusal(422, "an integer has 64 bits: -2^63 to 2^64 - 1", place)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What `/v1/embed` asks for: raw ids of a feature, or keys of a table."""

    feature: str | None
    table: str | None
    ids: npt.NDArray[np.int64] | list[int] | list[int | str]


def embed_request(call: Call, caps: Caps) -> Wanted:
    """What to look up, of a JSON body.

    Raises:
        Refusal: 400, 422 with the field.
    """
    request = decode(wire.EmbedRequest, call.body)
    if request.request_id is not None:
        call.name(request.request_id, "request_id")
    names = (request.feature, request.table)
    given, field = (request.ids, "ids") if request.feature is not None else (request.keys, "keys")
    _one_of(*names)
    other, other_field = (request.keys, "keys") if field == "ids" else (request.ids, "ids")
    if other is not None:
        whose = "a feature has ids" if field == "ids" else "a table has keys"
        raise Refusal(422, f"{whose}, received {other_field}", other_field)
    if given is None:
        raise Refusal(422, f"give {field}, a list", field)
    _check_length(len(given), caps, field)
    for place, value in enumerate(given):
        if type(value) is not type(given[0]):
            raise Refusal(422, "ids are all integers or all strings", f"{field}.{place}")
        if isinstance(value, int):
            _check_integer(value, f"{field}.{place}")
    if request.table is not None and any(value >= 2**63 for value in request.keys or ()):
        raise Refusal(422, "a key is a signed integer: -2^63 to 2^63 - 1", "keys")
    call.size = len(given)
    return Wanted(*names, given)


def embed_bytes(call: Call, caps: Caps) -> Wanted:
    """What to look up, of int64 ids in the body and `?feature=` or `?table=`.

    Raises:
        Refusal: 422.
    """
    feature, table = _address(call.query)
    if len(call.body) % 8:
        raise Refusal(422, f"the body holds int64 ids, 8 bytes each; received {len(call.body):,} bytes", "ids")
    ids = np.frombuffer(call.body, "<i8")
    call.size = len(ids)
    _check_length(len(ids), caps, "ids")
    return Wanted(feature, table, ids)


def need_no_parameters(call: Call) -> None:
    """Refuses (422) parameters in the address of a JSON request: what it asks is in the body."""
    if call.query:
        name = call.query.partition("=")[0][:_SHORT]
        raise Refusal(422, "a JSON request has no parameters in its address: say it in the body", name)


_addresses: dict[str, tuple[str | None, str | None]] = {}
_MAX_ADDRESSES = 256


def _address(query: str) -> tuple[str | None, str | None]:
    """`feature` and `table` of an address; the same few come again and again."""
    if query in _addresses:
        return _addresses[query]
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), max_num_fields=8)
    except ValueError:
        raise Refusal(422, "the address holds ?feature=<name> or ?table=<name>", "feature") from None
    known = ("feature", "table")
    for name, _ in pairs:
        if name not in known:
            shown = name[:_SHORT]
            raise Refusal(422, f"there is no parameter '{shown}'; {hint(shown, known)}", shown)
    found = dict(pairs)
    if len(found) < len(pairs):
        raise Refusal(422, "a parameter is given twice", pairs[-1][0])
    feature, table = found.get("feature"), found.get("table")
    _one_of(feature, table)
    if len(_addresses) < _MAX_ADDRESSES:
        _addresses[query] = feature, table
    return feature, table


def _one_of(feature: str | None, table: str | None) -> None:
    if (feature is None) == (table is None):
        received = "neither" if feature is None else "both"
        reason = f"give the name of a feature (with ids) or of a table (with keys), received {received}"
        raise Refusal(422, reason, "feature")


def _check_length(length: int, caps: Caps, field: str) -> None:
    if length > caps.ids:
        raise Refusal(422, f"has {length:,} entries, at most {caps.ids:,} are taken: ask in parts", field)

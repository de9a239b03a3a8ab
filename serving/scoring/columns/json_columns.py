"""Values of a JSON request as Arrow columns, in the types that the reader of a log would give them.

    JSON                     Arrow
    true, false              bool
    integers                 int64; uint64 or decimal128(20, 0) where one needs it, so that an id keeps its 64 bits
    numbers with a fraction  float64; integers beside them too, where the column is read as numbers
    strings                  string; of a column that is read as times a timestamp (RFC 3339)
    arrays                   large_list of one of these
    null                     null

A column holds one of them: what a log could not hold in one column is refused here with its place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import chain
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from embtables.inputs.times import moment_us
from embtables.serving.refusals import Refusal
from embtables.serving.scoring.side_tables import Place

Reading = Literal["ids", "numbers", "times", "s", "ms", "us", "ns"]
"""What a column is read as: ids; numbers; times; or the event time in integers of a unit."""

_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_NONE = type(None)
_INTEGERS = pa.large_list(pa.int64())


def json_column(name: str, values: Sequence[Any], reading: Reading, place: Place) -> pa.Array:
    """The values of a column, as JSON decodes them, as an array of one type.

    Args:
        values: (n,) of the rows of a request.
        place: where a row's value is in the request.

    Raises:
        Refusal: 422, with the place of the first value that does not go with those before, or that no column holds.
    """
    kinds = set(map(type, values))
    kinds.discard(_NONE)
    if len(kinds) > 1 and not (kinds == {int, float} and reading == "numbers"):
        raise _mixed(name, values, place)
    if not kinds:
        return pa.nulls(len(values))
    kind = kinds.pop() if len(kinds) == 1 else float
    if kind is list:
        return _lists(name, values, reading, place)
    make = _MAKERS.get(kind)
    if make is None:
        row = next(row for row, value in enumerate(values) if value is not None)
        raise Refusal(422, f"holds {_shown(values[row])}; a column holds numbers, strings, or lists", place(name, row))
    return make(name, values, reading, place)


def _lists(name: str, values: Sequence[Any], reading: Reading, place: Place) -> pa.Array:
    items = list(chain.from_iterable(value for value in values if value is not None))
    kinds = set(map(type, items))
    if kinds == {int} and reading != "times":
        try:
            return pa.array(values, _INTEGERS)
        except (OverflowError, pa.ArrowException):
            pass
    if list in kinds:
        row = next(row for row, value in enumerate(values) if value and any(type(item) is list for item in value))
        raise Refusal(422, "holds lists within a list", place(name, row))
    ends = np.cumsum([0 if value is None else len(value) for value in values])

    def place_of_item(name: str, item: int | None) -> str:
        return place(name, None if item is None else int(np.searchsorted(ends, item, side="right")))

    offsets = np.concatenate([[0], ends]).astype(np.int64)
    missing = pa.array([value is None for value in values]) if None in values else None
    return pa.LargeListArray.from_arrays(
        pa.array(offsets), json_column(name, items, reading, place_of_item), mask=missing
    )


def _integers(name: str, values: Sequence[Any], reading: Reading, place: Place) -> pa.Array:
    if reading == "times":
        row = next(row for row, value in enumerate(values) if value is not None)
        example = "2011-11-01T08:30:00Z"
        raise Refusal(422, f"holds {_shown(values[row])}; a time is a string such as {example}", place(name, row))
    try:
        return pa.array(values, pa.int64())
    except (OverflowError, pa.ArrowException):
        pass
    if reading == "numbers":
        return _floats(name, values, reading, place)
    for row, value in enumerate(values):
        if value is not None and not -(2**63) <= value < 2**64:
            raise Refusal(422, f"holds {_shown(value)}, which has more than 64 bits", place(name, row))
    if all(value is None or value >= 0 for value in values):
        return pa.array(values, pa.uint64())
    return pa.array(values, pa.decimal128(20, 0))


def _booleans(name: str, values: Sequence[Any], reading: Reading, place: Place) -> pa.Array:
    return pa.array(values, pa.bool_())


def _floats(name: str, values: Sequence[Any], reading: Reading, place: Place) -> pa.Array:
    try:
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    except OverflowError:  # an integer
        row = next(row for row, value in enumerate(values) if value is not None and abs(value) >= 2**1023)
        raise Refusal(422, "holds a number that is too large", place(name, row)) from None


def _strings(name: str, values: Sequence[Any], reading: Reading, place: Place) -> pa.Array:
    if reading not in ("ids", "numbers"):
        return _times(name, values, reading, place)
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:
        row = next(row for row, value in enumerate(values) if value is not None and not _is_utf8(value))
        raise Refusal(422, "holds a string that is not UTF-8", place(name, row)) from None


def _times(name: str, values: Sequence[Any], reading: Reading, place: Place) -> pa.Array:
    micros: list[int | None] = []
    for row, value in enumerate(values):
        try:
            micros.append(None if value is None else microseconds_of(value))
        except (ValueError, OverflowError):
            example = "2011-11-01T08:30:00Z"
            raise Refusal(422, f"holds {_shown(value)}; a time is like {example}", place(name, row)) from None
    if reading == "times":
        return pa.array(micros, pa.timestamp("us"))
    return pa.array([None if at is None else at * _PER_SECOND[reading] // 1_000_000 for at in micros], pa.int64())


def microseconds_of(text: str) -> int:
    """Microseconds since 1970 UTC of a time in RFC 3339; without an offset it is UTC. Raises ValueError."""
    return moment_us(datetime.fromisoformat(text))


_MAKERS: dict[type, Callable[[str, Sequence[Any], Reading, Place], pa.Array]] = {
    bool: _booleans,
    int: _integers,
    float: _floats,
    str: _strings,
}
_NAMES = {bool: "a boolean", int: "an integer", float: "a number", str: "a string", list: "a list", dict: "an object"}


def _mixed(name: str, values: Sequence[Any], place: Place) -> Refusal:
    first = next(value for value in values if value is not None)
    row, other = next((r, v) for r, v in enumerate(values) if v is not None and type(v) is not type(first))
    kinds = f"{_NAMES.get(type(other), 'a value')}, and other rows hold {_NAMES.get(type(first), 'a value')}"
    return Refusal(422, f"holds {kinds}; a column holds values of one type", place(name, row))


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

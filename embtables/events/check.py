"""Which events of a batch are what `embtables.events.columns` says, and why others are not.

    a batch --check_events--> good rows, with the columns in their types    -> the log, features, joiner
                          \\-> bad rows, as they came, a reason for each     -> dead letters

NaN in other columns is no matter of this check: who reads a column knows what it may hold.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from embtables.errors import DataError
from embtables.events.columns import COLUMNS, EVENT_ID, EVENT_TIME, FORMAT, FORMAT_KEY, KIND
from embtables.schema.base import Model

Reason = Literal[
    "unknown_format",
    "missing_column",
    "repeated_column",
    "wrong_type",
    "null_event_id",
    "empty_event_id",
    "long_event_id",
    "null_kind",
    "null_event_time",
    "time_ahead",
    "time_behind",
]
REASONS: tuple[Reason, ...] = get_args(Reason)
MAX_EVENT_ID_BYTES = 128

_DAY = 86_400_000_000  # microseconds
_NULL: dict[str, Reason] = {EVENT_ID: "null_event_id", KIND: "null_kind", EVENT_TIME: "null_event_time"}
_LATEST = 2**63 - 1
_TIMES = (pa.types.is_timestamp, pa.types.is_date)
_TEXTS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)


class EventLimits(Model):
    """How far the time of an event may be from that of who receives it."""

    max_ahead_seconds: float = Field(600.0, ge=0, le=1e9, description="Later events are refused.")
    max_behind_days: float = Field(400.0, ge=0, le=1e6, description="Earlier events are refused.")


@dataclass(frozen=True, slots=True)
class CheckedEvents:
    """The rows of a batch, each in one of two.

    Attributes:
        good: the columns of `COLUMNS` in their types (request_id: null where it was missing), then the others as they
            came; the format in the metadata.
        bad: rows as they came.
        reasons: one for each row of `bad`, the first that was found.
    """

    good: pa.RecordBatch
    bad: pa.RecordBatch
    reasons: list[Reason]

    @property
    def counts(self) -> Counter[Reason]:
        """Bad rows by reason."""
        return Counter(self.reasons)


def check_events(events: pa.RecordBatch, now: int, limits: EventLimits | None = None) -> CheckedEvents:
    """Splits a batch into rows that are events and rows that are not.

    Args:
        events: n rows. Texts may be of any of Arrow's text types, or dictionaries of them; times of any unit and zone,
            without a zone they are UTC. Without a format in its metadata it has the present one.
        now: what `event_time` is compared with, microseconds since 1970 (a clock, or the time of a replay).

    Raises:
        DataError: it is no record batch.
    """
    if not isinstance(events, pa.RecordBatch):
        raise DataError(f"events are a pyarrow.RecordBatch, received {type(events).__name__}")
    limits = limits or EventLimits()
    whole = _format_or_names(events)
    if whole is None:
        columns = {name: _cast(events, name) for name in COLUMNS.names}
        typed = {name: column for name, column in columns.items() if column is not None}
        whole = None if len(typed) == len(columns) else "wrong_type"
    if whole is not None:
        return CheckedEvents(_typed(events.slice(0, 0), {}), events, [whole] * events.num_rows)
    codes = _codes(typed, events.num_rows, now, limits)
    kept = _typed(events, typed)
    if (codes < 0).all():
        return CheckedEvents(kept, events.slice(0, 0), [])
    good = pa.array(codes < 0)
    return CheckedEvents(
        kept.filter(good), events.filter(pc.invert(good)), [REASONS[code] for code in codes[codes >= 0]]
    )


def _format_or_names(events: pa.RecordBatch) -> Reason | None:
    """What is wrong with all rows, as far as the names of the columns and the metadata say."""
    said = (events.schema.metadata or {}).get(FORMAT_KEY)
    if said is not None and said != str(FORMAT).encode():
        return "unknown_format"
    names = events.schema.names
    if any(name not in names for name in _NULL):
        return "missing_column"
    return "repeated_column" if len(set(names)) < len(names) else None


def _cast(events: pa.RecordBatch, name: str) -> pa.Array | None:
    """A column in its type; None where it cannot be. A missing column of nulls is one of nulls."""
    kind = COLUMNS.field(name).type
    if name not in events.schema.names:
        return pa.nulls(events.num_rows, kind)
    column = events.column(name)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    known = _TIMES if pa.types.is_timestamp(kind) else _TEXTS
    if not any(is_known(column.type) for is_known in (*known, pa.types.is_null)):
        return None
    try:
        # Nanoseconds lose their last digits; text of more than 2 GB and times that microseconds cannot hold fail.
        return column.cast(kind, safe=not pa.types.is_timestamp(column.type) or column.type.unit != "ns")
    except pa.ArrowException:
        return None


def _codes(typed: dict[str, pa.Array], rows: int, now: int, limits: EventLimits) -> npt.NDArray[np.int8]:
    """(rows,) int8: the index in REASONS of the first reason against a row; -1: there is none."""
    lengths = pc.binary_length(typed[EVENT_ID])
    times = typed[EVENT_TIME].cast(pa.int64())
    # In Python's integers: `now` and the limits may be anything.
    latest, earliest = now + int(limits.max_ahead_seconds * 1e6), now - int(limits.max_behind_days * _DAY)
    found: list[tuple[Reason, pa.Array]] = [(reason, typed[name].is_null()) for name, reason in _NULL.items()]
    found += [
        ("empty_event_id", pc.equal(lengths, 0)),
        ("long_event_id", pc.greater(lengths, MAX_EVENT_ID_BYTES)),
        ("time_ahead", pc.greater(times, min(latest, _LATEST))),
        ("time_behind", pc.less(times, max(earliest, -_LATEST))),
    ]
    codes = np.full(rows, -1, np.int8)
    for reason, wrong in sorted(found, key=lambda each: REASONS.index(each[0]), reverse=True):
        codes[wrong.fill_null(False).to_numpy(zero_copy_only=False)] = REASONS.index(reason)
    return codes


def _typed(events: pa.RecordBatch, typed: dict[str, pa.Array]) -> pa.RecordBatch:
    """The columns of COLUMNS first, then the others; the format in the metadata."""
    fields = [COLUMNS.field(name) for name in COLUMNS.names]
    arrays = [typed[name] if typed else pa.nulls(0, COLUMNS.field(name).type) for name in COLUMNS.names]
    for index, field in enumerate(events.schema):
        if field.name not in COLUMNS.names:
            fields.append(field)
            arrays.append(events.column(index))
    metadata = {**(events.schema.metadata or {}), FORMAT_KEY: str(FORMAT).encode()}
    # Null is refused row by row.
    nullable = [field.with_nullable(True) for field in fields]
    return pa.record_batch(arrays, pa.schema(nullable, metadata=metadata))

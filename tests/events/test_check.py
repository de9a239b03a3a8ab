"""Events are checked row by row against an oracle in plain Python, whatever columns they have."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embtables.errors import ConfigError, DataError
from embtables.events.check import EventLimits, check_events
from embtables.events.columns import COLUMNS, FORMAT_KEY
from tests.events.events_for_tests import events

NOW = 1_700_000_000_000_000
AHEAD, BEHIND = 600 * 10**6, 400 * 86_400 * 10**6

_ids = st.none() | st.text(max_size=3) | st.sampled_from(["é" * 64, "é" * 64 + "x", "x" * 128, "x" * 129])
_times = st.none() | st.sampled_from(
    [NOW, NOW + AHEAD, NOW + AHEAD + 1, NOW - BEHIND, NOW - BEHIND - 1, -(2**63), 2**63 - 1]
)
_rows = st.fixed_dictionaries(
    {
        "event_id": _ids,
        "kind": st.none() | st.just("click"),
        "event_time": _times,
        "request_id": st.none() | st.just(""),
    }
)


def reason_of(row: dict[str, Any]) -> str | None:
    if row["event_id"] is None:
        return "null_event_id"
    if not row["event_id"]:
        return "empty_event_id"
    if len(row["event_id"].encode()) > 128:
        return "long_event_id"
    if row["kind"] is None:
        return "null_kind"
    if row["event_time"] is None:
        return "null_event_time"
    if row["event_time"] > NOW + AHEAD:
        return "time_ahead"
    return "time_behind" if row["event_time"] < NOW - BEHIND else None


def batch(rows: list[dict[str, Any]]) -> pa.RecordBatch:
    columns = {name: [row[name] for row in rows] for name in COLUMNS.names}
    arrays = [pa.array(columns[name], COLUMNS.field(name).type) for name in COLUMNS.names]
    return pa.record_batch([*arrays, pa.array(range(len(rows)))], [*COLUMNS.names, "price"])


@given(st.lists(_rows, max_size=20))
def test_every_row_is_good_or_bad_for_the_first_reason(rows: list[dict[str, Any]]) -> None:
    checked = check_events(batch(rows), NOW)
    expected = [reason_of(row) for row in rows]
    assert checked.reasons == [reason for reason in expected if reason is not None]
    assert checked.good["price"].to_pylist() == [i for i, reason in enumerate(expected) if reason is None]
    assert checked.bad["price"].to_pylist() == [i for i, reason in enumerate(expected) if reason is not None]
    assert checked.good.schema.metadata[FORMAT_KEY] == b"1"
    assert [checked.good.schema.field(name).type for name in COLUMNS.names] == COLUMNS.types


@pytest.mark.parametrize("kind", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())])
def test_every_type_of_text_is_taken(kind: pa.DataType) -> None:
    given = events(0)
    for name in ("event_id", "kind", "request_id"):
        given = given.set_column(given.schema.get_field_index(name), name, given[name].cast(kind))
    checked = check_events(given, 0)
    assert checked.reasons == []
    assert checked.good.to_pydict() == events(0).to_pydict()


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (pa.array([1_700_000_000], pa.timestamp("s", "UTC")), NOW),
        (pa.array([1_700_000_000], pa.timestamp("s", "Asia/Tokyo")), NOW),
        (pa.array([NOW * 1000 + 999], pa.timestamp("ns")), NOW),
        (pa.array([NOW // 86_400_000_000], pa.date32()), NOW - NOW % 86_400_000_000),
    ],
)
def test_times_of_every_unit_and_zone_are_microseconds(times: pa.Array, expected: int) -> None:
    given = events(0, 1).set_column(2, "event_time", times)
    checked = check_events(given, NOW)
    assert checked.reasons == []
    assert checked.good["event_time"].cast(pa.int64()).to_pylist() == [expected]


def test_seconds_that_microseconds_cannot_hold_are_refused() -> None:
    given = events(0, 1).set_column(2, "event_time", pa.array([2**62], pa.timestamp("s")))
    assert check_events(given, NOW).reasons == ["wrong_type"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda b: b.replace_schema_metadata({FORMAT_KEY: b"2"}), "unknown_format"),
        (lambda b: b.drop_columns(["event_id"]), "missing_column"),
        (lambda b: b.drop_columns(["kind"]), "missing_column"),
        (lambda b: b.drop_columns(["event_time"]), "missing_column"),
        (lambda b: b.append_column("kind", b["kind"]), "repeated_column"),
        (lambda b: b.set_column(0, "event_id", pa.array([1, 2, 3])), "wrong_type"),
        (lambda b: b.set_column(2, "event_time", pa.array([1, 2, 3])), "wrong_type"),
        (lambda b: b.set_column(3, "request_id", pa.array([1, 2, 3])), "wrong_type"),
        (lambda b: b.set_column(0, "event_id", pa.nulls(3)), "null_event_id"),
    ],
)
def test_what_is_wrong_with_a_whole_batch(change: Any, reason: str) -> None:
    given = change(events(0))
    checked = check_events(given, 0)
    assert checked.reasons == [reason] * 3
    assert checked.bad.equals(given)
    assert checked.good.num_rows == 0
    assert dict(checked.counts) == {reason: 3}


def test_without_request_ids_they_are_null() -> None:
    checked = check_events(events(0).drop_columns(["request_id"]), 0)
    assert checked.good["request_id"].to_pylist() == [None] * 3


def test_limits_are_options() -> None:
    given = events(0, 10)  # at 0 to 9 microseconds
    checked = check_events(given, 5, EventLimits(max_ahead_seconds=2e-6, max_behind_days=0))
    assert checked.good["event_id"].to_pylist() == ["e5", "e6", "e7"]
    with pytest.raises(ConfigError, match="max_ahead_seconds"):
        EventLimits(max_ahead_seconds=-1)
    with pytest.raises(DataError, match="RecordBatch"):
        check_events([], 0)  # type: ignore[arg-type]

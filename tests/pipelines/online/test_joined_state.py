"""A reader's state from hostile hands: what was not written by a reader is refused, and never crashes the process."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embtables.errors import StateError
from embtables.pipelines.online.join.joined_events import JoinedEvents, JoinedState
from tests.pipelines.online.events_for_tests import LogInMemory, batch, click, imp, options, passed, read_all

LOG = LogInMemory(2)
for _partition in range(2):
    LOG.append(_partition, batch([imp(f"{_partition}-{n}", "a", n) for n in range(40)]))
    LOG.append(_partition, batch([click(f"{_partition}-{n}", "a", n) for n in range(0, 40, 3)]))
    LOG.append(_partition, batch([click(f"{_partition}-{n}", "b", n + 115) for n in range(5)]))
passed(LOG, 115)
ONLINE = options(late_window_seconds=100)
STATE = read_all(LOG, ONLINE, batch_rows=11).states[2]


def begin(state: JoinedState, log: LogInMemory = LOG) -> JoinedEvents:
    return JoinedEvents(
        log, ONLINE, "click", batch_rows=11, is_replay=True, set_aside=lambda reason, events: None, state=state
    )


def with_column(table: str, column: str, change: Callable[[np.ndarray[Any, Any]], Any]) -> JoinedState:
    of = STATE.tables[table]
    place = of.schema.get_field_index(column)
    values = of.column(column).to_numpy().copy()
    return with_table(
        table, of.set_column(place, of.schema.field(place), pa.array(change(values), of.column(column).type))
    )


def with_table(name: str, table: pa.Table) -> JoinedState:
    return JoinedState(STATE.content, {**STATE.tables, name: table})


def with_content(*path: str, value: object) -> JoinedState:
    def changed(node: Mapping[str, Any], rest: tuple[str, ...]) -> dict[str, Any]:
        return {**node, rest[0]: value if len(rest) == 1 else changed(node[rest[0]], rest[1:])}

    return JoinedState(changed(STATE.content, path), STATE.tables)


def put(place: int, value: int) -> Callable[[np.ndarray[Any, Any]], Any]:
    def change(values: np.ndarray[Any, Any]) -> Any:
        values[place] = value
        return values

    return change


def test_the_state_has_something_to_break() -> None:
    begin(STATE)
    states = [set(STATE.tables[f"events.{partition}"].column("state").to_pylist()) for partition in range(2)]
    assert (states[0] | states[1], 0 in states[1]) == ({0, 2, 3, 4, 5}, True)
    entries = [STATE.tables[f"entries.{partition}"].num_rows for partition in range(2)]
    assert (sum(entries), STATE.tables["samples.0"].num_rows > 0) == (4, True)


OPEN = STATE.tables["events.1"].column("state").to_pylist().index(0)
DAMAGED = {
    "a key twice": with_column("events.1", "key", lambda keys: np.full_like(keys, 7)),
    "a state beyond the last": with_column("events.1", "state", put(0, 7)),
    "the state of what was let go": with_column("events.1", "state", put(0, 6)),
    "a row beyond an entry's": with_column("events.1", "row", put(OPEN, 2**32 - 1)),
    "an entry that is not listed": with_column("events.1", "entry", put(OPEN, 2**32 - 1)),
    "a time without end": with_column("events.1", "time", put(OPEN, 2**63 - 1)),
    "a clock without end": with_column("entries.1", "clock", put(0, -(2**63))),
    "an entry that nothing is of": with_table("entries.1", pa.concat_tables([STATE.tables["entries.1"]] * 2)),
    "no entries": with_table("entries.1", STATE.tables["entries.1"].slice(0, 0)),
    "columns of another table": with_table("events.1", STATE.tables["entries.1"]),
    "columns of other types": with_table("columns.1", pa.table({"item": pa.array([], pa.list_(pa.int8()))})),
    "nulls": with_column("events.1", "key", lambda keys: pa.array([None] * len(keys), pa.uint64())),
    "no table": JoinedState(STATE.content, {"events.0": STATE.tables["events.0"]}),
    "another format": with_content("format", value=1),
    "an unknown field": with_content("more", value=2),
    "a partition that the log does not have": with_content("partitions", "2", value=STATE.content["partitions"]["0"]),
    "a partition that is no number": with_content("partitions", "../2", value=STATE.content["partitions"]["0"]),
    "a turn that is text": with_content("partitions", "1", "had_turn", value="no"),
    "a clock that no event has": with_content("partitions", "1", "clock", value=2**62),
    "a watermark without end": with_content("partitions", "1", "joiner", "closed_until", value=-(2**62)),
    "a count below zero": with_content("partitions", "1", "joiner", "counts", "positives", value=-1),
    "a count that is text": with_content("partitions", "1", "joiner", "counts", "positives", value="1"),
}


@pytest.mark.parametrize("damaged", DAMAGED.values(), ids=DAMAGED.keys())
def test_what_no_reader_wrote_is_refused(damaged: JoinedState) -> None:
    with pytest.raises(StateError):
        begin(damaged)


@settings(deadline=None, max_examples=150)
@given(
    table=st.sampled_from(["events.0", "entries.1", "columns.0", "samples.0"]),
    places=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4),
    end=st.floats(0, 1),
)
def test_damaged_bytes_are_refused_or_mean_a_state(table: str, places: list[tuple[float, int]], end: float) -> None:
    files = {name: b"".join(file.chunks()) for name, file in STATE.files().items()}
    raw = bytearray(files[table])
    for place, value in places:
        raw[int(place * len(raw))] = value
    if end < 0.2:
        del raw[int(end * 5 * len(raw)) :]
    files[table] = bytes(raw)
    with contextlib.suppress(StateError):
        begin(JoinedState.of_files(STATE.content, {name: memoryview(raw) for name, raw in files.items()}))


def test_a_state_goes_on_with_other_windows() -> None:
    other = options(late_window_seconds=500, window_seconds=30)
    reader = JoinedEvents(
        LOG, other, "click", batch_rows=1000, is_replay=True, set_aside=lambda reason, events: None, state=STATE
    )
    assert sum(each.num_rows for each in reader.batches()) > 0


def test_positions_are_those_of_what_is_joined_and_not_of_what_is_read_ahead() -> None:
    log = LogInMemory()
    for number in range(10):
        log.append(0, batch([imp(f"{number}", "a", 0), click(f"{number}", "a", 1)]))
    found = read_all(log, options(), batch_rows=1)
    assert [state.content["partitions"]["0"]["position"] for state in found.states] == [str(n) for n in (*range(10), 9)]

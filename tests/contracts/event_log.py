"""The contract of every event log, against a list of what was appended.

A log's test file subclasses `EventLogContract` and says which URI is that of a log that does not exist yet.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embtables.errors import ConfigError, DataError, EventLogError
from embtables.events import Entry, EventLog, Positions, open_log
from tests.events.events_for_tests import events
from tests.events.servers_for_tests import open_files

PARTITIONS = 3
_TYPES = st.sampled_from([pa.int64(), pa.float64(), pa.string(), pa.list_(pa.int32()), pa.timestamp("us"), pa.bool_()])


@st.composite
def batches(draw: st.DrawFn) -> pa.RecordBatch:
    """Any columns, nulls among them, and metadata."""
    rows = draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    columns = {}
    for name in draw(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=4, unique=True)):
        kind = draw(_TYPES)
        values = rng.integers(0, 1000, rows)
        made = {
            "list<item: int32>": lambda v=values: [list(range(x % 4)) for x in v],
            "string": lambda v=values: [chr(0x20 + x) * (x % 9) for x in v],
            "double": lambda v=values: [float("nan") if x % 7 == 0 else x / 3 for x in v],
            "bool": lambda v=values: [bool(x % 2) for x in v],
        }.get(str(kind), lambda v=values: v.tolist())()
        columns[name] = pa.array([None if x % 3 == 0 else y for x, y in zip(values, made, strict=True)], kind)
    return pa.record_batch(columns).replace_schema_metadata({"made": draw(st.text(max_size=5))})


def read_all(log: EventLog, partition: int, after: str | None = None, at_once: int = 1000) -> list[Entry]:
    found: list[Entry] = []
    while entries := log.read(partition, after, max_entries=at_once):
        assert len(entries) <= at_once
        found += entries
        after = entries[-1].position
    return found


def same(a: pa.RecordBatch, b: pa.RecordBatch) -> bool:
    """Equal values (NaN is NaN), columns and metadata."""
    return a.schema.equals(b.schema, check_metadata=True) and str(a.to_pydict()) == str(b.to_pydict())


class EventLogContract:
    """Subclasses give `make_uri`."""

    @pytest.fixture
    def uri(self, make_uri: Callable[[], str]) -> str:
        return f"{make_uri()}?partitions={PARTITIONS}"

    @pytest.fixture
    def log(self, uri: str) -> Iterator[EventLog]:
        with closing(open_log(uri)) as log:
            yield log

    @settings(
        max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors]
    )
    @given(data=st.data())
    def test_what_is_appended_is_read_in_order_from_every_place(self, log: EventLog, data: st.DataObject) -> None:
        before = {p: log.last(p) for p in range(PARTITIONS)}
        appended: dict[int, list[tuple[str, pa.RecordBatch]]] = {p: [] for p in range(PARTITIONS)}
        for partition in data.draw(st.lists(st.integers(0, PARTITIONS - 1), min_size=1, max_size=6)):
            batch = data.draw(batches())
            appended[partition].append((log.append(partition, batch), batch))
        for partition, expected in appended.items():
            at_once = data.draw(st.integers(1, 4))
            for start in range(len(expected) + 1):
                after = expected[start - 1][0] if start else before[partition]
                found = read_all(log, partition, after, at_once)
                assert [entry.position for entry in found] == [position for position, _ in expected[start:]]
                assert all(entry.partition == partition for entry in found)
                assert all(same(entry.events, batch) for entry, (_, batch) in zip(found, expected[start:], strict=True))
            for position, batch in expected:
                assert same(log.fetch(partition, position), batch)
            assert log.last(partition) == (expected[-1][0] if expected else before[partition])

    def test_a_slice_is_appended_as_it_is(self, log: EventLog) -> None:
        whole = events(0, 100)
        position = log.append(0, whole.slice(37, 5))
        assert same(log.fetch(0, position), pa.RecordBatch.from_pylist(whole.slice(37, 5).to_pylist(), whole.schema))

    def test_a_log_without_entries(self, log: EventLog) -> None:
        assert log.num_partitions == PARTITIONS
        for partition in range(PARTITIONS):
            assert log.read(partition, None) == []
            assert log.last(partition) is None
        assert not log.wait({}, 0.01)

    def test_another_object_reads_and_goes_on(self, log: EventLog, uri: str) -> None:
        first = log.append(1, events(0))
        with closing(open_log(urlsplit(uri)._replace(query="").geturl())) as other:
            assert other.num_partitions == PARTITIONS
            assert other.last(1) == first
            second = other.append(1, events(3))
            third = log.append(1, events(6))
            assert [e.position for e in read_all(other, 1, first)] == [second, third]
        assert [e.position for e in read_all(log, 1)] == [first, second, third]

    def test_columns_that_come_later_are_read_with_the_entries_that_have_them(self, log: EventLog) -> None:
        given = [events(0), events(3, price=pa.array([1.0, None, float("nan")])), events(6)]
        for batch in given:
            log.append(0, batch)
        assert all(same(entry.events, batch) for entry, batch in zip(read_all(log, 0), given, strict=True))

    def test_threads_append_and_nothing_is_lost_or_twice(self, log: EventLog, uri: str) -> None:
        threads, each = 4, 25
        acknowledged: dict[tuple[int, str], int] = {}

        def work(writer: int) -> None:
            mine = log if writer % 2 else open_log(uri)
            for i in range(each):
                position = mine.append(writer % 2, events(1000 * writer + 3 * i))
                acknowledged[writer % 2, position] = writer
            if mine is not log:
                mine.close()

        running = [threading.Thread(target=work, args=(i,)) for i in range(threads)]
        for thread in running:
            thread.start()
        seen: dict[int, list[str]] = {0: [], 1: []}
        while any(thread.is_alive() for thread in running):
            for partition, positions in seen.items():
                positions += [e.position for e in log.read(partition, positions[-1] if positions else None)]
        for partition, positions in seen.items():
            positions += [e.position for e in read_all(log, partition, positions[-1] if positions else None)]
            entries = read_all(log, partition)
            assert [e.position for e in entries] == positions
            firsts = [int(e.events["event_id"][0].as_py()[1:]) for e in entries]
            for writer in range(partition, threads, 2):
                assert [f for f in firsts if f // 1000 == writer] == [1000 * writer + 3 * i for i in range(each)]
        assert acknowledged.keys() == {(p, position) for p, positions in seen.items() for position in positions}
        assert len(acknowledged) == threads * each

    def test_waiting_ends_when_another_object_appends(self, log: EventLog, uri: str) -> None:
        after: Positions = {0: log.append(0, events(0)), 2: log.append(2, events(0))}
        assert not log.wait(after, 0.05)
        assert log.wait({0: after[0]}, 0.0)
        assert not log.wait({0: after[0]}, 0.05, partitions=[0, 1])
        assert log.wait({0: after[0]}, 0.0, partitions=[2])
        waiting, woken = threading.Event(), []

        def wait() -> None:
            waiting.set()
            woken.append(log.wait(after, 60.0))

        thread = threading.Thread(target=wait)
        thread.start()
        waiting.wait()
        with closing(open_log(uri)) as other:
            other.append(1, events(3))
        thread.join(30)
        assert woken == [True]

    def test_entries_of_few_and_of_many_bytes(self, log: EventLog) -> None:
        rng = np.random.default_rng(0)
        given = [
            events(0, rows, noise=pa.array(rng.random((rows, 8)).tolist(), pa.list_(pa.float64())))
            for rows in (1, 10_000, 1, 300)
        ]
        positions = [log.append(0, batch) for batch in given]
        assert all(same(log.fetch(0, at), batch) for at, batch in zip(positions, given, strict=True))
        assert [e.events.num_rows for e in read_all(log, 0)] == [1, 10_000, 1, 300]

    def test_a_batch_without_rows_is_refused(self, log: EventLog) -> None:
        with pytest.raises(DataError, match="at least one event"):
            log.append(0, events(0, 0))
        assert log.last(0) is None

    @pytest.mark.parametrize("partition", [-1, PARTITIONS])
    def test_a_partition_that_there_is_not(self, log: EventLog, partition: int) -> None:
        for call in (
            lambda: log.append(partition, events(0)),
            lambda: log.read(partition, None),
            lambda: log.fetch(partition, "0"),
            lambda: log.last(partition),
        ):
            with pytest.raises(EventLogError, match=f"partitions 0 to {PARTITIONS - 1}, not {partition}"):
                call()

    @pytest.mark.parametrize("position", ["", "x", "-1", "0x1", "../0", "9" * 40, "1.2.3.4.5", "\u0661", "1 "])
    def test_a_position_that_is_none(self, log: EventLog, position: str) -> None:
        log.append(0, events(0))
        for call in (lambda: log.read(0, position), lambda: log.fetch(0, position), lambda: log.wait({0: position}, 0)):
            with pytest.raises(EventLogError, match="no position"):
                call()

    def test_a_position_of_a_longer_log_is_refused(self, log: EventLog, make_uri: Callable[[], str]) -> None:
        with closing(open_log(make_uri())) as other:
            for i in range(5):
                position = other.append(0, events(i))
        log.append(0, events(0))
        with pytest.raises(EventLogError, match="no entry of this log"):
            log.read(0, position)
        with pytest.raises(EventLogError, match="no entry of this log"):
            log.fetch(0, position)

    def test_another_number_of_partitions_is_refused(self, log: EventLog, uri: str) -> None:
        with pytest.raises(ConfigError, match=f"{PARTITIONS} partitions, not 2"):
            open_log(uri.replace(f"partitions={PARTITIONS}", "partitions=2"))

    @pytest.mark.parametrize(
        ("query", "message"),
        [
            ("partitons=3", "unknown key 'partitons'; did you mean 'partitions'"),
            ("partitions=0", "partitions"),
            ("partitions=1025", "partitions"),
            ("partitions=x", "partitions"),
            ("partitions=1&partitions=1", "occurs twice"),
            ("keep_seconds=nan", "keep_seconds"),
        ],
    )
    def test_an_option_that_is_wrong_is_named(self, make_uri: Callable[[], str], query: str, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            open_log(f"{make_uri()}?{query}")

    def test_files_and_threads_are_freed(self, uri: str) -> None:
        def use() -> None:
            with closing(open_log(uri)) as log:
                position = log.append(0, events(0))
                log.fetch(0, position)
                assert read_all(log, 0)

        use()
        before, threads = open_files(), threading.active_count()
        for _ in range(5):
            use()
        deadline = time.monotonic() + 30  # a client's connections end in its background threads
        while (open_files() > before or threading.active_count() > threads) and time.monotonic() < deadline:
            threading.Event().wait(0.02)
        assert open_files() <= before
        assert threading.active_count() <= threads


_numbers = count()


def fresh_name() -> str:
    """A name for a log that no test has used."""
    return f"log{next(_numbers)}"

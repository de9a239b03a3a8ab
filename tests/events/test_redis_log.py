"""The log in Redis Streams: the contract, servers that are killed, trimmed streams and entries of others."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from embtables.errors import ConfigError, EventLogError, EventsLostError
from embtables.events import EventLog, open_log
from embtables.events.encoding import encode
from tests.contracts.event_log import EventLogContract, fresh_name, read_all
from tests.events.events_for_tests import events
from tests.events.killed_writers import check, write_and_kill
from tests.events.servers_for_tests import RedisServer

redis = pytest.importorskip("redis")


class TestRedisLog(EventLogContract):
    @pytest.fixture
    def make_uri(self, redis_server: RedisServer) -> Callable[[], str]:
        return lambda: f"{redis_server.uri}/{fresh_name()}"


@pytest.fixture
def log(redis_server: RedisServer) -> Iterator[EventLog]:
    with closing(open_log(f"{redis_server.uri}/{fresh_name()}")) as log:
        yield log


@pytest.mark.slow
def test_a_server_that_is_killed_and_started_again_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, "everysec")
    try:
        uri = f"{server.uri}/events"

        def restart() -> None:
            server.kill()
            server.start()

        with (
            pytest.warns(UserWarning, match="appendfsync is everysec"),
            closing(open_log(f"{uri}?partitions=2")) as log,
        ):
            acknowledged = write_and_kill(uri, 3, 2, random.Random(0), restart)
            # A writer that sends an entry again, because its connection broke, appends it once.
            assert check(log, acknowledged) >= 3 * 2 * 3
    finally:
        server.kill()


def test_an_append_goes_on_when_the_connection_breaks(redis_server: RedisServer, log: EventLog) -> None:
    positions = []
    for i in range(5):
        positions.append(log.append(0, events(i)))
        with closing(redis.Redis(port=redis_server.port)) as other:
            other.client_kill_filter(skipme=True, _type="normal")
    assert [entry.position for entry in read_all(log, 0)] == positions


def test_without_a_server_it_says_so_in_time(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    with closing(open_log(f"{server.uri}/events?timeout_seconds=0.3")) as log:
        log.append(0, events(0))
        server.kill()
        for call in (lambda: log.append(0, events(0)), lambda: log.read(0, None), lambda: log.wait({}, 5)):
            with pytest.raises(EventLogError, match="cannot be reached"):
                call()
    with pytest.raises(EventLogError, match="cannot be reached"):
        open_log(f"{server.uri}/events?timeout_seconds=0.3")


@pytest.mark.parametrize("fsync", ["no", None])
def test_a_server_that_may_lose_entries_is_warned_of(tmp_path: Path, fsync: str | None) -> None:
    server = RedisServer(tmp_path, fsync)
    try:
        with pytest.warns(UserWarning, match="appendonly is off" if fsync is None else "appendfsync is no"):
            open_log(f"{server.uri}/events").close()
    finally:
        server.kill()


def test_old_entries_are_trimmed_and_their_loss_is_named(redis_server: RedisServer) -> None:
    with closing(open_log(f"{redis_server.uri}/{fresh_name()}?keep_entries=20")) as log:
        positions = [log.append(0, events(i, 40)) for i in range(100)]
        kept = read_all(log, 0)
        first = 100 - len(kept)
        assert [entry.position for entry in kept] == positions[first:]
        assert 20 <= len(kept) < 40
        with pytest.raises(EventsLostError) as caught:
            log.read(0, positions[10])
        assert (caught.value.path["first_lost"], caught.value.path["last_lost"]) == (11, first - 1)
        assert log.read(0, positions[first - 1])[0].position == positions[first]
        with pytest.raises(EventsLostError):
            log.fetch(0, positions[0])


def test_entries_are_trimmed_by_age(redis_server: RedisServer) -> None:
    name = fresh_name()
    with closing(open_log(f"{redis_server.uri}/{name}?keep_seconds=1000")) as log:
        with closing(redis.Redis(port=redis_server.port)) as other:
            for i in range(200):
                other.xadd(f"{{{name}:0}}", {"n": i, "events": bytes(encode(events(i, 1)))}, id=f"{i + 1}-0")
            other.set(f"{{{name}:0}}:entries", 200)
        first = log.read(0, None, max_entries=1)[0]
        position = log.append(0, events(200))
        assert 1 <= len(read_all(log, 0)) < 100
        assert log.last(0) == position
        with pytest.raises(EventsLostError):
            log.read(0, first.position)


def test_a_stream_that_was_emptied_is_a_loss(redis_server: RedisServer) -> None:
    name = fresh_name()
    with closing(open_log(f"{redis_server.uri}/{name}")) as log:
        positions = [log.append(0, events(i)) for i in range(3)]
        with closing(redis.Redis(port=redis_server.port)) as other:
            other.xtrim(f"{{{name}:0}}", maxlen=0)
        with pytest.raises(EventsLostError, match=r"entries 1 to 2 \(2\)"):
            log.read(0, positions[0])
        assert log.read(0, positions[2]) == []


@pytest.mark.parametrize("fields", [{"x": "y"}, {"n": "0"}, {"n": "-1", "events": "x"}, {"n": "0", "events": "x"}])
def test_entries_of_others_are_refused(redis_server: RedisServer, fields: dict[str, str]) -> None:
    name = fresh_name()
    with closing(open_log(f"{redis_server.uri}/{name}")) as log:
        with closing(redis.Redis(port=redis_server.port)) as other:
            other.xadd(f"{{{name}:0}}", fields)
        with pytest.raises(EventLogError, match="entry"):
            log.read(0, None)


@pytest.mark.parametrize(
    "uri",
    ["redis://127.0.0.1", "redis:///0/x", "redis://127.0.0.1/x/y", "redis://127.0.0.1:99999/0/x", "redis://h/0/a b"],
)
def test_a_uri_that_names_no_stream(uri: str) -> None:
    with pytest.raises(ConfigError):
        open_log(uri)

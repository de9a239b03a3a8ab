"""A server of the event log that is away, or has no memory left, while a live trainer reads and a writer appends."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from embtables.errors import EventLogAwayError, EventLogError
from embtables.events import open_log
from embtables.pipelines.online.patient_log import PatientLog
from tests.contracts.event_log import read_all
from tests.events.events_for_tests import events
from tests.events.servers_for_tests import RedisServer
from tests.faults import forked
from tests.faults.online import drains, world

redis = pytest.importorskip("redis")


@pytest.mark.slow
def test_a_live_trainer_goes_on_when_the_server_is_back(tmp_path: Path) -> None:
    server, said = RedisServer(tmp_path), tmp_path / "said"
    uri = f"{server.uri}/events?timeout_seconds=1"
    moments = world.in_order(world.visits(3, 2.0, 30.0))
    config = world.prepare(tmp_path, uri)
    trainer = None
    try:
        with closing(open_log(f"{uri}&partitions=2")) as log:
            trainer = forked.command(said, "online", str(config))
            world.append(log, [event for event in moments if event.at < 15.0])
            _until(lambda: list(tmp_path.glob("runs/*/checkpoints/manifests/serving-*")), said)
            server.kill()
            with pytest.raises(EventLogAwayError, match="cannot be reached"):
                log.append(0, events(0))
            _until(lambda: "training goes on when it is back" in said.read_text(), said)
            server.start()
            world.append(log, [event for event in moments if event.at >= 15.0])
            world.end(log)
            _until(lambda: "the event log is back" in said.read_text(), said)
            assert trainer.is_alive()
            trainer.terminate()
            trainer.join(60)
            assert trainer.exitcode is not None and trainer.exitcode >= 0, said.read_text()
            drained = drains.drain(config)
            joined = drains.assert_used_once(drained, log)
            assert {event.event_id for event in moments} <= joined.ids
    finally:
        if trainer is not None:
            trainer.kill()
        server.kill()


def _until(is_so: Callable[[], object], said: Path) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline, said.read_text()
        time.sleep(0.05)


def test_a_server_without_memory_refuses_appends_and_is_read_on(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    try:
        with closing(open_log(f"{server.uri}/events")) as log, closing(redis.Redis(port=server.port)) as other:
            first = log.append(0, events(0))
            other.config_set("maxmemory-policy", "noeviction")
            other.config_set("maxmemory", 1)
            with pytest.raises(EventLogError, match="maxmemory"):
                log.append(0, events(5))
            assert [entry.position for entry in read_all(log, 0)] == [first]
            assert log.last(0) == first
            assert log.fetch(0, first).num_rows == 3
            assert not log.wait({0: first}, 0.01)
            other.config_set("maxmemory", 0)
            second = log.append(0, events(5))
            assert [entry.position for entry in read_all(log, 0)] == [first, second]
    finally:
        server.kill()


def test_a_run_that_is_asked_to_stop_does_not_wait_for_the_server(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    with closing(open_log(f"{server.uri}/events?timeout_seconds=0.1")) as log:
        server.kill()
        with pytest.raises(EventLogAwayError):
            PatientLog(log, lambda: True).read(0, None)

"""`embtables online` over Redis and Kafka: the same samples as over a folder, also where a run goes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from embtables.events import open_log
from embtables.pipelines.config import load_config
from embtables.pipelines.online.run_online import online, resume
from embtables.pipelines.run_dir import RunDir
from tests.events.servers_for_tests import KafkaBroker, RedisServer
from tests.faults.online import drains, world
from tests.faults.run_tables import tables_of


@pytest.fixture(params=["redis", "kafka"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    pytest.importorskip("redis" if request.param == "redis" else "confluent_kafka")
    server = RedisServer(tmp_path) if request.param == "redis" else KafkaBroker(tmp_path)
    yield f"{server.uri}/events"
    server.kill()


def drained_twice(folder: Path, uri: str) -> drains.Drained:
    """A run that drains half of a world, and goes on with the other half."""
    folder.mkdir()
    events = world.in_order(world.visits(4, 4.0, 60.0))
    half = next(place for place, event in enumerate(events) if event.at >= 30.0)
    with closing(open_log(f"{uri}?partitions=2")) as log:
        world.append(log, events[:half])
        first = online(load_config(world.prepare(folder, uri)), "events", drains=True, shown=False)
        run = RunDir(Path(first["run_dir"]))
        world.append(log, events[half:])
        world.end(log)
        report = resume(run, drains=True, shown=False)
        assert first["rows"] < report["rows"]
        found = drains.Drained(run.path, report, 0, 0.0)
        joined = drains.assert_used_once(found, log)
    assert joined.ids >= {event.event_id for event in events}
    return found


@pytest.mark.slow
def test_samples_are_those_of_a_folder(uri: str, tmp_path: Path) -> None:
    other = drained_twice(tmp_path / "other", uri)
    folder = drained_twice(tmp_path / "folder", f"folder://{tmp_path}/events")
    assert other.report["events"] == folder.report["events"]
    assert tables_of(other.run) == tables_of(folder.run)

"""The log in Kafka: the contract, brokers that are away or have forgotten, and messages of others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from embtables.errors import ConfigError, EventLogError, EventsLostError
from embtables.events import EventLog, open_log
from embtables.events.kafka_log import KafkaLog
from tests.contracts.event_log import EventLogContract, fresh_name, read_all
from tests.events.events_for_tests import events
from tests.events.servers_for_tests import KafkaBroker

confluent_kafka = pytest.importorskip("confluent_kafka")


class TestKafkaLog(EventLogContract):
    @pytest.fixture
    def make_uri(self, kafka_broker: KafkaBroker) -> Callable[[], str]:
        return lambda: f"{kafka_broker.uri}/{fresh_name()}"


@pytest.fixture
def log(kafka_broker: KafkaBroker) -> Iterator[EventLog]:
    with closing(open_log(f"{kafka_broker.uri}/{fresh_name()}?timeout_seconds=20")) as log:
        yield log


def test_a_broker_that_is_not_there_for_a_while(tmp_path: Path) -> None:
    broker = KafkaBroker(tmp_path)
    try:
        with closing(open_log(f"{broker.uri}/events?timeout_seconds=60")) as log:
            positions = [log.append(0, events(0))]
            broker.pause()
            answers: list[object] = []
            threads = [
                threading.Thread(target=lambda: positions.append(log.append(0, events(3)))),
                threading.Thread(target=lambda: answers.append(log.last(0))),
            ]
            for thread in threads:
                thread.start()
            assert all(thread.is_alive() for thread in threads)
            broker.go_on()
            for thread in threads:
                thread.join()
            assert [entry.position for entry in read_all(log, 0)] == positions
            assert len(answers) == 1
    finally:
        broker.kill()


def test_without_a_broker_it_says_so_in_time(tmp_path: Path) -> None:
    broker = KafkaBroker(tmp_path)
    with closing(open_log(f"{broker.uri}/events?timeout_seconds=8")) as log:
        log.append(0, events(0))  # a machine that is busy takes its time
        broker.kill()
        with pytest.raises(EventLogError, match="not known"):
            log.read(0, None)
        with pytest.raises(EventLogError, match=r"not taken|not acknowledged"):
            log.append(0, events(0))
    with pytest.raises(EventLogError, match="cannot be looked at"):
        open_log(f"{broker.uri}/events?timeout_seconds=1")


def test_a_broker_that_has_forgotten_is_no_log_of_the_position(tmp_path: Path) -> None:
    broker = KafkaBroker(tmp_path)
    try:
        with closing(open_log(f"{broker.uri}/events?timeout_seconds=20")) as log:
            position = log.append(0, events(0))
        broker.kill()
        broker.start()  # it keeps everything in memory
        with (
            closing(open_log(f"{broker.uri}/events?timeout_seconds=20")) as log,
            pytest.raises(EventLogError, match="brokers have lost entries"),
        ):
            log.read(0, position)
    finally:
        broker.kill()


def test_the_loss_of_old_entries_is_named(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker of these tests removes nothing: the ends of the partition are as another would give them."""
    assert isinstance(log, KafkaLog)
    positions = [log.append(0, events(i)) for i in range(6)]
    monkeypatch.setattr(log._connection, "offsets", lambda partition: (4, 6))
    with pytest.raises(EventsLostError, match=r"entries 1 to 3 \(3\)") as caught:
        log.read(0, positions[0])
    assert (caught.value.path["first_lost"], caught.value.path["last_lost"]) == (1, 3)
    assert [entry.position for entry in log.read(0, positions[3])] == positions[4:]
    assert [entry.position for entry in log.read(0, None)] == positions[4:]
    with pytest.raises(EventsLostError):
        log.fetch(0, positions[3])


def test_messages_of_others_are_refused(kafka_broker: KafkaBroker) -> None:
    name = fresh_name()
    with closing(open_log(f"{kafka_broker.uri}/{name}")) as log:
        producer = confluent_kafka.Producer({"bootstrap.servers": kafka_broker.uri.removeprefix("kafka://")})
        producer.produce(name, b"{}", partition=0)
        producer.flush()
        with pytest.raises(EventLogError, match="not a record batch") as caught:
            log.read(0, None)
        assert (caught.value.path["partition"], caught.value.path["offset"]) == (0, 0)


@pytest.mark.parametrize("uri", ["kafka://127.0.0.1", "kafka:///events", "kafka://h/a/b", "kafka://u:p@h/a"])
def test_a_uri_that_names_no_topic(uri: str) -> None:
    with pytest.raises(ConfigError, match="kafka://host:port"):
        open_log(uri)

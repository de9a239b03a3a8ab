"""The log in Kafka: the contract, over a broker with its protocol."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.contracts.event_log import EventLogContract, fresh_name
from tests.events.servers_for_tests import KafkaBroker


class TestKafkaLog(EventLogContract):
    @pytest.fixture
    def make_uri(self, kafka_broker: KafkaBroker) -> Callable[[], str]:
        return lambda: f"{kafka_broker.uri}/{fresh_name()}"

"""The log in Redis Streams: the contract."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.contracts.event_log import EventLogContract, fresh_name
from tests.events.servers_for_tests import RedisServer


class TestRedisLog(EventLogContract):
    @pytest.fixture
    def make_uri(self, redis_server: RedisServer) -> Callable[[], str]:
        return lambda: f"{redis_server.uri}/{fresh_name()}"

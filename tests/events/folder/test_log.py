"""The log in a folder: the contract."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.contracts.event_log import EventLogContract, fresh_name


class TestFolderLog(EventLogContract):
    @pytest.fixture
    def make_uri(self, tmp_path: Path) -> Callable[[], str]:
        return lambda: f"folder://{tmp_path}/{fresh_name()}"

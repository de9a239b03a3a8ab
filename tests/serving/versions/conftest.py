"""A trainer that publishes, and a server's side that follows it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from embtables.serving.versions.follow import Following, FollowSettings
from embtables.serving.versions.live import Live
from tests.serving.versions.trainer_for_tests import Trainer, trainer

WAIT = 60.0  # seconds until a test gives up


class Follows:
    """A `Following` and its `Live`."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.live = Live()
        settings = options.pop("settings", FollowSettings(poll_seconds=0.05, look_seconds=0.05))
        self.following = Following(folder, self.live, settings, **options)
        self.following.start()

    def until(self, least: str) -> Any:
        """The version that answers, once it is this one or a newer one."""
        found = self.live.wait(WAIT, least)
        assert found is not None, self.following.why_not_ready()
        assert found.name == least, (found.name, self.following.set_aside.last)
        return found

    def roll_back(self) -> str:
        """The version before the present one, which answers now, as the admin route does it."""
        version = self.following.version_before()
        self.following.pin(version)
        return version

    def until_looked(self, newest: str) -> None:
        """Until the thread has come to the end of a turn that found this version, whether it took it or not."""
        while self.following.info().newest != newest:
            assert self.following.last_error is None, self.following.last_error
            time.sleep(0.005)


@pytest.fixture
def trained(tmp_path: Path) -> Iterator[Trainer]:
    """A trainer in `tmp_path` that has published once."""
    with trainer(tmp_path) as made:
        made.publish(5)
        yield made


@pytest.fixture
def follow() -> Iterator[Callable[..., Follows]]:
    """Follows a folder until the test ends."""
    made: list[Follows] = []

    def start(folder: Path, **options: Any) -> Follows:
        made.append(Follows(folder, **options))
        return made[-1]

    yield start
    for each in made:
        each.following.stop()

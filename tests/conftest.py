"""Gloo groups, one of each size for the whole run; property tests that fail by what they find, not by the clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import settings

from tests.shard.groups_for_tests import Group

settings.register_profile("embtables", deadline=None)
settings.load_profile("embtables")


@pytest.fixture(scope="session")
def group() -> Iterator[Callable[[int], Group]]:
    made: dict[int, Group] = {}

    def of(size: int) -> Group:
        if size not in made:
            made[size] = Group(size)
        return made[size]

    yield of
    for each in made.values():
        each.close()

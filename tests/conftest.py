"""Gloo groups, one of each size for the whole run."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.shard.groups_for_tests import Group


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

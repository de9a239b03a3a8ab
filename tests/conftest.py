"""Gloo groups, one of each size for the whole run; the command line in this process.

Property tests fail by what they find, not by the clock.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

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


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs `embtables` with these arguments, for a terminal of 80 columns: exit status, stdout, stderr."""
    from embtables.pipelines.cli.main import main

    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["embtables", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
            status = 0
        except SystemExit as end:
            status = int(end.code or 0)
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


@pytest.fixture
def call(command: Callable[..., tuple[int, str, str]]) -> Callable[..., tuple[int, Any]]:
    """The same: exit status, and the JSON on the last line of stdout, or the text on stderr where there is none."""

    def run(*arguments: object) -> tuple[int, Any]:
        status, out, err = command(*arguments)
        return status, json.loads(out.splitlines()[-1]) if out else err

    return run

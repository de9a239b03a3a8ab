"""Every mutant can be made: its text stands exactly once in its file. `make mutants` shows that tests notice them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutants.changes import Mutant, all_mutants

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("mutant", all_mutants(), ids=lambda m: m.name)
def test_the_text_that_a_mutant_replaces_stands_once_in_its_file(mutant: Mutant) -> None:
    for change in mutant.changes:
        assert change.applied((ROOT / change.file).read_text())


def test_the_tests_that_must_notice_are_there() -> None:
    named = {argument.split("::")[0] for m in all_mutants() for argument in m.tests if argument.startswith("tests/")}
    assert named
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []

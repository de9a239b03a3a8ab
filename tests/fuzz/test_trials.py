"""Each trial finds a fault that is put into what it compares."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.fuzz import check as checks
from tests.fuzz.oracle import literals
from tests.fuzz.oracle.values import Column
from tests.fuzz.trials import resumed


def kinds_of(numbers: list[int], tmp_path: Path) -> set[str]:
    """What cases end with; the first ones of a trial, up to the first wrong one."""
    found: set[str] = set()
    for number in numbers:
        found.add(checks.check(2, number, tmp_path / str(number)).kind)
        if "wrong rows" in found:
            break
    return found


def numbers_of(name: str) -> list[int]:
    places = [place for place, trial in checks._TRIALS.items() if trial.__name__ == name]
    return [place + 24 * number for number in range(10) for place in places]


def _swapped(rng: Any, family: str, values: list[Any]) -> pa.Array | None:
    from tests.fuzz.drawn.encode import encoded

    return encoded(rng, family, values[::-1])


def _reversed(table: pa.Table, folder: Path) -> pa.Table:
    from tests.fuzz.trials.frames import _arrow

    return _arrow(table, folder).take(list(reversed(range(table.num_rows))))


FAULTS: dict[str, tuple[str, Any]] = {
    "evaluate": ("tests.fuzz.trials.evaluated.auc", lambda rows: 0.123),
    "frames": ("tests.fuzz.trials.frames._KINDS", {"arrow": _reversed}),
    "predict": ("tests.fuzz.trials.predicted.encoded", _swapped),
    "resume": ("tests.fuzz.trials.resumed._CHANGES", {"nothing": (resumed._nothing, "refused")}),
    "suggest": ("tests.fuzz.trials.suggested.starting_config", lambda log, wishes: "name: without_tables\n"),
    "examples": ("tests.fuzz.trials.examples.derived", lambda *_: {"item_sales": -1}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_a_trial_finds_what_is_wrong(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, fault = FAULTS[name]
    monkeypatch.setattr(place, fault)
    assert "wrong rows" in kinds_of(numbers_of(name), tmp_path)


@pytest.mark.parametrize(
    ("text", "family", "values", "wanted"),
    [
        ("v == 01234", "text", [b"1234", b"01234", None], [False, True, False]),
        ("v == 01234", "int", [1234, 1, None], [True, False, False]),
        ("v not in [1, 2.5]", "int", [1, 2, None], [False, True, False]),
        ("v < 1.5", "float", [1.0, 1.5, float("nan")], [True, False, False]),
        ("v >= 2024-01-02", "time", [1_704_153_600_000_000, 1_704_153_599_999_999, None], [True, False, False]),
        ("v in ['null', ' a']", "bytes", [b"null", b" a", b"a"], [True, True, False]),
        ("v is null", "list:int", [None, []], [True, False]),
    ],
)
def test_the_oracle_reads_literals_by_the_column(text: str, family: str, values: list[Any], wanted: list[bool]) -> None:
    assert literals.admits(text, Column(family, values)) == wanted

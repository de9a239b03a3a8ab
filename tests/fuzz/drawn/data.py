"""The data section of a case."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.fuzz.drawn.columns import Mood
from tests.fuzz.drawn.conditions import draw_column_split, draw_where
from tests.fuzz.drawn.joins import draw_joins
from tests.fuzz.drawn.layout import draw_folders, draw_missing, draw_parts

if TYPE_CHECKING:
    from tests.fuzz.drawn.draw import Draw


def draw_data(case: Draw) -> None:
    """Blocks, quarantine, order, conditions, split, side tables and the places of the files."""
    data, rng = case.config["data"], case.rng
    data["block_rows"] = int(rng.choice([1, 7, 50, 131_072]))
    if case.chance(0.5):
        data["on_bad_row"] = "quarantine"
    if case.chance(0.3):
        data["shuffle"] = {"seed": int(rng.integers(9)), "buffer_rows": int(rng.choice([5, 1000]))}
    if case.chance(0.3):
        data["where"] = draw_where(case)
    if case.chance(0.12):
        draw_parts(case)
    elif case.chance(0.3):
        _split(case)
    if case.chance(0.2):
        draw_joins(case)
    if case.chance(0.25):
        case.folders = draw_folders(case)
    if case.chance(0.12) and len(case.files) > 1:
        draw_missing(case)


def _split(case: Draw) -> None:
    data, kind = case.config["data"], str(case.rng.choice(["column", "hash", "time"]))
    if kind == "time" and "event_time" in case.config:
        earlier = {"validation_from": "2024-01-04T12:00:00+09:00"} if case.chance(0.5) else {}
        data["split"] = {"kind": "time", **earlier, "test_from": "2024-01-08T00:00:00"}
    elif kind == "hash":
        data["split"] = {"kind": "hash", "columns": ["h"], "validation": 0.2, "test": 0.2}
        case.ids("h", spirit=Mood(0.1, 0.1, 0.0))
    else:
        data["split"] = draw_column_split(case)

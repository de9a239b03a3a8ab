"""The evaluate section: slices, groups and baselines on columns of every type."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.fuzz.drawn.columns import ID_GROUPS, NUMBER_GROUPS, Mood, mood
from tests.fuzz.drawn.conditions import draw_condition

if TYPE_CHECKING:
    from tests.fuzz.drawn.draw import Draw


def draw_evaluate(case: Draw) -> None:
    """Columns of their own for each."""
    found: dict[str, Any] = {"batch_size": int(case.rng.choice([4, 50, 1000]))}
    odd = [0.0] * 2 if case.clean else [0.3] * 2
    if case.chance(0.7):
        spirit = mood(case.rng)
        case.column("base", case.types(NUMBER_GROUPS, [10, 0.7, *odd, 0.0]), spirit)
        found["baseline_columns"] = ["base", *(["d0"] if "d0" in case.files[0] and case.chance(0.5) else [])]
    if case.chance(0.6):
        family = str(case.rng.choice(["int", "text", "time", "bool", "float"]))
        case.column("s", case.types([[family]], [1]), Mood(0.1, 0.0, 0.0)) if "s" not in case.files[0] else None
        conditions = [draw_condition(case, "s", family)]
        found["slices"] = [{"name": "one", "where": conditions}, {"name": "none", "where": ["y is null"]}]
    if case.chance(0.6):
        case.column("g", case.types(ID_GROUPS, [5, 6, 3, 0.5, *odd, 0.0]), mood(case.rng))
        found["group_column"] = "g"
    case.config["evaluate"] = found

"""Conditions of every kind on columns of every type, and splits by the values of a column."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.fuzz.drawn.columns import Mood

if TYPE_CHECKING:
    from tests.fuzz.drawn.draw import Draw

_LITERALS: dict[str, list[str]] = {
    "int": ["0", "5", "1.5", "300", "-99999999999999999999", "007", "1e1", "18446744073709551615"],
    "bool": ["true", "false", "1", "0", "True"],
    "float": ["0.5", "3", "1e3", "-inf", "nan", "1e30"],
    "decimal": ["2", "0.5", "1e20"],
    "fraction": ["2", "0.50", "3.00"],
    "text": ["NO", "on", "007", "1e3", "'null'", "2024-01-02", "a", "é", "7", "' a'", "''"],
    "bytes": ["NO", "007", "a"],
    "time": ["2024-01-03", "2024-01-05T12:00:00", "2024-01-05T12:00:00+08:00", "2024-01-05 00:00:00"],
    "date": ["2024-01-03", "2024-01-05T12:00:00"],
    "null": ["1", "a"],
    "odd": ["5"],
}
_OPERATORS = ["==", "!=", "<", "<=", ">", ">=", "in", "not in", "is null", "is not null"]


def draw_condition(case: Draw, name: str, family: str) -> str:
    """A condition on a column whose files are mostly of a family; rarely with a literal of another."""
    rng = case.rng
    op = str(rng.choice(_OPERATORS))
    if op.startswith("is"):
        return f"{name} {op}"
    pool = _LITERALS[family if case.clean or not case.chance(0.06) else str(rng.choice(list(_LITERALS)))]
    if op in ("in", "not in"):
        texts = [_quoted(str(text)) for text in rng.choice(pool, int(rng.integers(1, 4)))]
        return f"{name} {op} [{', '.join(texts)}]"
    return f"{name} {op} {rng.choice(pool)}"


def _quoted(text: str) -> str:
    # In a list a bare null would be no text.
    return text if text[:1] == "'" or text.isalnum() else f"'{text}'"


def draw_where(case: Draw) -> list[str]:
    """Conditions on a column of their own."""
    family = str(case.rng.choice(list(_LITERALS), p=_shares()))
    types = case.types([[family]], [1])
    wrap = case.chance(0.04)
    case.column("v", types, Mood(float(case.rng.choice([0, 0.2])), 0.0, 0.0), wrap)
    return [draw_condition(case, "v", family) for _ in range(1 if case.chance(0.8) else 2)]


def _shares() -> list[float]:
    weights = [1.0 if family in ("null", "odd") else 6.0 for family in _LITERALS]
    return [weight / sum(weights) for weight in weights]


_PARTS: dict[str, list[Any]] = {
    "text": ["a", "NO", "007"],
    "int": [0, 1, 2],
    "bool": [False, True],
    "decimal": ["0", "1.0", 2],
    "float": [0.5, 1, "1.50"],
    "date": ["2024-01-01", "2024-01-02", "2024-01-03"],
    "null": ["a", "b", "c"],
    "odd": ["a", "b", "c"],
}


def draw_column_split(case: Draw) -> dict[str, Any]:
    """A split by a column of its own, in which some parts keep the words that stand for them by default."""
    families = list(_PARTS)
    weights = [1.0 if family in ("null", "odd") else 8.0 for family in families]
    family = str(case.rng.choice(families, p=[weight / sum(weights) for weight in weights]))
    case.column("part", case.types([[family]], [1]), Mood(float(case.rng.choice([0, 0.1])), 0.0, 0.0))
    parts = {name: [value] for name, value in zip(("train", "test", "validation"), _PARTS[family], strict=False)}
    if family == "bool" or case.chance(0.2):
        parts["validation"] = []
    elif case.chance(0.2):
        del parts["validation"]
    return {"kind": "column", "column": "part", **parts}

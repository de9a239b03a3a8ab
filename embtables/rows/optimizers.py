"""What the rows of a table consist of, by optimizer: weight and optimizer state."""

from __future__ import annotations

from collections.abc import Mapping

_PARTS = {
    "sgd": {"weight": True},
    "adagrad": {"weight": True, "sum": True},
    "rowwise_adagrad": {"weight": True, "sum": False},
    "adam": {"weight": True, "exp_avg": True, "exp_avg_sq": True},
}


def parts_of(optimizer: str) -> dict[str, bool]:
    """The tensors that a row has a part of, by optimizer; True: D values a row, False: one."""
    return _PARTS[optimizer]


def optimizer_of(parts: Mapping[str, bool]) -> str:
    """The optimizer whose rows have these parts."""
    return next(optimizer for optimizer, known in _PARTS.items() if known == parts)


def known_parts() -> list[dict[str, bool]]:
    """What rows of any optimizer consist of."""
    return list(_PARTS.values())

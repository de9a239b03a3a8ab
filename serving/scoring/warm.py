"""Made-up requests, so that everything is loaded and measured before the first real one."""

from __future__ import annotations

from typing import Any

from embtables.serving import wire
from embtables.serving.scoring.columns.column_rules import ColumnRules

MADE_UP_CANDIDATES = 100


def made_up_request(rules: ColumnRules, columns: list[wire.ColumnInfo], ids: list[Any]) -> wire.ScoreRequest:
    """A request with an example of each column that no side table gives.

    Args:
        columns: as `/v1/model` describes them.
        ids: of candidates that side tables know; without any, candidates are rows.
    """
    wanted = {column.name: column.example for column in columns if not column.is_joined and column.name != rules.clock}
    for column in rules.keys:  # a joined column's key, which the model may not read
        wanted.setdefault(column, 1)
    if rules.candidate_key is not None and ids:
        wanted.pop(rules.candidate_key, None)
        candidates: list[Any] = (ids * MADE_UP_CANDIDATES)[:MADE_UP_CANDIDATES]
        return wire.ScoreRequest(context=wanted, candidates=candidates)
    return wire.ScoreRequest(context=wanted, candidates=[{} for _ in range(MADE_UP_CANDIDATES)])

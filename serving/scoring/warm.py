"""Requests of a log, and made-up ones, so that everything is loaded and measured before the first real one."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

import msgspec

from embtables.serving import wire
from embtables.serving.scoring.columns.column_rules import ColumnRules

MADE_UP_CANDIDATES = 100
MAX_RECORDED = 32
_MAX_LINE = 4 << 20


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


def recorded_requests(log: Path | None) -> list[wire.ScoreRequest]:
    """The last requests of a server's request log (`EMBTABLES_SERVE_REQUEST_LOG`), where it keeps their values.

    A log that is not there yet, and lines that are no requests, give none: warming is no reason not to serve.
    """
    found: deque[wire.ScoreRequest] = deque(maxlen=MAX_RECORDED)
    if log is None:
        return []
    try:
        with log.open("rb") as lines:
            for line in iter(lambda: lines.readline(_MAX_LINE), b""):
                try:
                    logged = msgspec.json.decode(line, type=wire.LoggedRequest)
                except msgspec.MsgspecError:
                    continue
                if logged.request is not None:
                    found.append(logged.request)
    except OSError:
        return []
    return list(found)

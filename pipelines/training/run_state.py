"""`RunState`: where a run stands, besides its tensors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class RunState:
    """What is no tensor but must survive: where the run stands. JSON-able."""

    step: int = 0
    epoch: int = 0
    position: dict[str, Any] | None = None
    rows: int = 0
    train_seconds: float = 0.0
    epoch_rows: int | None = None
    total_steps: int | None = None
    best: float | None = None
    best_step: int | None = None
    evaluated_step: int | None = None
    evaluations_without_gain: int = 0
    finished: bool = False
    quarantined_rows: int = 0
    started_from: dict[str, Any] = field(default_factory=dict)

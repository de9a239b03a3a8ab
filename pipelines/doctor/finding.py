"""What one check has found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warning", "broken"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's answer.

    Attributes:
        check: its name.
        state: warning: something is slower or may fail; broken: training fails, or gives wrong figures.
        found: what there is.
        why: why it matters; empty if nothing is wrong.
        remedy: what to do; empty if nothing is wrong.
    """

    check: str
    state: State
    found: str
    why: str = ""
    remedy: str = ""

"""What a trial is given, and what it says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.fuzz.oracle.log import Reading


@dataclass(frozen=True)
class Verdict:
    """What a case ended with: `trained`, `refused`, or a fault with what was found."""

    kind: str
    detail: str = ""


@dataclass(frozen=True)
class Case:
    """A drawn case.

    Attributes:
        config: the parsed YAML of `folder/config.yaml`.
        wanted: what the oracle reads, or why the log must be refused.
        rng: for what the trial draws.
    """

    config: dict[str, Any]
    folder: Path
    wanted: Reading | str
    rng: np.random.Generator

    @property
    def data(self) -> dict[str, Any]:
        """The data section."""
        found: dict[str, Any] = self.config["data"]
        return found


class WrongRowsError(Exception):
    """The package's rows are not the oracle's."""


def need(what: str, found: Any, wanted: Any) -> None:
    """Raises WrongRowsError if two values differ."""
    if found != wanted:
        raise WrongRowsError(f"{found} {what} instead of {wanted}")

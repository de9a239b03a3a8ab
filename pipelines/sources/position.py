"""Where a reader stands: which blocks of the order were begun, and how far. Independent of the ranks' number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from embtables.errors import StateError


@dataclass(frozen=True, slots=True)
class Position:
    """Rows that were handed out: all of the blocks before `next_block`, but for the rest of those in `partial`.

    Attributes:
        epoch: which order of the blocks.
        next_block: the first block that no rank has begun.
        partial: (block, rows handed out) of begun blocks that are not used up, ascending.
    """

    epoch: int
    next_block: int = 0
    partial: tuple[tuple[int, int], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and lists."""
        return {"epoch": self.epoch, "next_block": self.next_block, "partial": [list(p) for p in self.partial]}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Position:
        """Reads what `to_json` wrote. Raises StateError where it is something else."""
        try:
            partial = tuple((int(block), int(rows)) for block, rows in content["partial"])
            return cls(int(content["epoch"]), int(content["next_block"]), partial)
        except (KeyError, TypeError, ValueError) as error:
            raise StateError(f"the reader's position is damaged: {error!r}") from error

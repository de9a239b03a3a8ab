"""Where a reader stands: which blocks of the order were begun, and how far. Independent of the ranks' number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from embtables.errors import StateError
from embtables.pipelines.sources.files.record import Digest
from embtables.schema import Model, error_lines

_Count = Annotated[int, Field(strict=True, ge=0, lt=2**63)]


class _Content(Model):
    """The JSON of a position."""

    epoch: _Count
    next_block: _Count
    partial: tuple[tuple[_Count, _Count], ...]
    files: Digest | None = None

    @model_validator(mode="after")
    def _in_order(self) -> _Content:
        blocks = [block for block, _ in self.partial]
        if any(a >= b for a, b in pairwise([*blocks, self.next_block])):
            raise ValueError("partial: the blocks must ascend, all below next_block")
        return self


@dataclass(frozen=True, slots=True)
class Position:
    """Rows that were handed out: all of the blocks before `next_block`, but for the rest of those in `partial`.

    Attributes:
        epoch: which order of the blocks.
        next_block: the first block that no rank has begun.
        partial: (block, rows handed out) of begun blocks that are not used up, ascending.
        files: digest of the record of the epoch's files; None where they were not recorded.
    """

    epoch: int
    next_block: int = 0
    partial: tuple[tuple[int, int], ...] = ()
    files: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, lists and texts."""
        content = {"epoch": self.epoch, "next_block": self.next_block, "partial": [list(p) for p in self.partial]}
        return content if self.files is None else {**content, "files": self.files}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Position:
        """Reads what `to_json` wrote. Raises StateError if it is something else."""
        try:
            read = _Content.model_validate(content)
        except ValidationError as error:
            raise StateError(f"the reader's position is damaged: {error_lines(error)[0]}") from None
        return cls(read.epoch, read.next_block, read.partial, read.files)

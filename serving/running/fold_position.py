"""`FoldPosition`: up to where a checkpoint of running features has folded, and what it knows besides their state."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, ValidationError

from embtables.errors import StateError
from embtables.inputs.id_kinds import IdKind
from embtables.schema.base import Model, config_error

Int64 = Annotated[int, Field(strict=True, ge=-(2**63), lt=2**63)]


class FoldPosition(Model):
    """JSON, in a checkpoint.

    Attributes:
        positions: by partition the entry that was folded last; a partition that is absent has not been begun.
        until_us: events before it were folded from another log (`embtables running fold`), in microseconds of event
            time, and are not folded again.
        kinds: of events that count; None: all but impressions.
        id_kinds: by column of keys what its ids are made of.
        counts, ignored: see `UsableEvents`.
    """

    format: Literal[1] = 1
    positions: dict[Annotated[int, Field(ge=0)], str] = Field(default_factory=dict)
    until_us: Int64 | None = None
    kinds: tuple[str, ...] | None = None
    id_kinds: dict[str, IdKind] = Field(default_factory=dict)
    counts: dict[str, NonNegativeInt] = Field(default_factory=dict)
    ignored: dict[str, NonNegativeInt] = Field(default_factory=dict)

    @classmethod
    def read(cls, content: Any, folder: Path) -> FoldPosition:
        """The position of a checkpoint. Raises StateError if it is of something else."""
        try:
            return cls.model_validate(content, strict=False)
        except ValidationError as error:
            raise StateError(f"is no checkpoint of an event log: {config_error(error)}", folder=folder) from None

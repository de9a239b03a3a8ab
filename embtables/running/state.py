"""What a fold keeps, as arrays: to be written with the position of the log that it has come to."""

from __future__ import annotations

from dataclasses import dataclass, field

from embtables.running.key_table import Int64s

FORMAT = 1
"""Of the arrays' meaning and names."""


@dataclass(frozen=True, slots=True)
class RunningCounts:
    """What became of events and questions.

    Attributes:
        events: taken in, rows that no feature counts included.
        late_events: those that were older than the clock by more than the lateness; they count nevertheless.
        late_questions: as old; answered with what is kept.
        held_back: batches whose time was further ahead than the clock may step.
        ignored: events that some features did not count, by the column (or columns, "a, b") that has no usable value:
            null, absent, or without meaning.
    """

    events: int = 0
    late_events: int = 0
    late_questions: int = 0
    held_back: int = 0
    ignored: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunningState:
    """All that a fold knows.

    Attributes:
        definitions: JSON of the features and options that it belongs to, and of the format.
        clock: in microseconds; None: there was no event yet.
        groups: the arrays of each group of features, int64 by name.
    """

    definitions: str
    clock: int | None
    counts: RunningCounts
    groups: tuple[dict[str, Int64s], ...]

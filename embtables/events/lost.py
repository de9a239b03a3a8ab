"""The error of a position that is older than what a log keeps, the same for every log."""

from __future__ import annotations

from embtables.errors import EventsLostError


def events_lost(first_lost: int, first_kept: int, options: str, **path: object) -> EventsLostError:
    """Names the entries that a reader would have passed over.

    Args:
        first_lost: number (or offset) of the entry that follows the reader's position.
        first_kept: of the oldest entry that there is; above `first_lost`.
        options: what of the log says how long entries are kept.
    """
    return EventsLostError(
        f"entries {first_lost:,} to {first_kept - 1:,} ({first_kept - first_lost:,}) are no longer kept; the first "
        f"that is kept is {first_kept:,}. To go on after them, begin without a position; to lose nothing, keep events "
        f"for longer than a reader may stand still ({options})",
        **path,
        first_lost=first_lost,
        last_lost=first_kept - 1,
        first_kept=first_kept,
    )

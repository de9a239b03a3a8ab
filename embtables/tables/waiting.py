"""Row gradients that wait for a step: a loop that never takes one is told so."""

from __future__ import annotations

import warnings

MOST_WAITING = 1_000  # backwards of lookups


class WaitingGradients:
    """Counts the backwards of lookups since the last step, and warns once where no step seems to come.

    Each keeps the gradients of its rows, so that a loop without `step` learns nothing and fills the memory.
    """

    def __init__(self) -> None:
        self.backwards = 0
        self._warned = False

    def note(self) -> None:
        """A lookup's row gradients were kept."""
        self.backwards += 1
        if self.backwards > MOST_WAITING and not self._warned:
            self._warned = True
            warnings.warn(
                f"row gradients of {self.backwards:,} lookups wait for tables.step(): without it no row learns, and "
                "all of them are kept in memory. Call tables.step() after backward, tables.discard() to drop them, or "
                "make the view with update='backward'",
                stacklevel=2,
            )

    def clear(self) -> None:
        """They were applied or dropped."""
        self.backwards = 0

"""`BatchSource`: where training batches come from. The parquet log is one; a stream or an event log are others.

    source.stretch(number, position) -> Stretch -> (Batch, position after it), ... -> boundary -> the next stretch

A run records the number of its stretch and the position of the last batch it trained on, as JSON; a source that is
given both again yields exactly what would have followed, on any number of ranks.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any, Protocol

from embtables.inputs.batch import Batch


class SourcePosition(Protocol):
    """Where a source stands after a batch."""

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, strings and lists."""


class SourceItem(Protocol):
    """A rank's part of a batch, and the position after the whole batch."""

    @property
    def batch(self) -> Batch:
        """The rank's rows, perhaps none."""

    @property
    def position(self) -> SourcePosition:
        """The same at every rank."""


class Stretch(Protocol):
    """The batches up to a boundary of the source, at which a run may evaluate; for a log, an epoch."""

    @property
    def title(self) -> str:
        """The text that a user sees beside its progress."""

    @property
    def total_rows_hint(self) -> int | None:
        """About how many rows all ranks get of the whole stretch, if that is known."""

    @property
    def quarantined(self) -> Mapping[str, int]:
        """Bad rows of this rank that were set aside so far, by cause."""

    @property
    def next_position(self) -> Mapping[str, Any] | None:
        """Once all its batches were taken: the position with which the next stretch begins; None: its own beginning."""

    def __iter__(self) -> Generator[SourceItem, None, None]:
        """The batches after the stretch's position, once. Raises DataError for bad rows that are not set aside."""


class BatchSource(Protocol):
    """Batches in an order that does not depend on the number of ranks."""

    @property
    def bad_files(self) -> Mapping[str, str]:
        """Files that were set aside so far, with the reason."""

    def stretch(self, number: int, position: Mapping[str, Any] | None) -> Stretch | None:
        """The stretch `number` (from 0) after a position in it (None: from its beginning); None past the last one.

        Raises:
            StateError: the position is not one of this source.
        """

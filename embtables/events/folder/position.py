"""`Position`: where an entry of a folder log lies, as a short text `entry.segment.offset.digest`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from embtables.errors import EventLogError

_TEXT = re.compile(r"([0-9]{1,19})\.([0-9]{1,19})\.([0-9]{1,19})\.([0-9a-f]{8})")


@dataclass(frozen=True, slots=True)
class Position:
    """An entry of a partition.

    Attributes:
        entry: its number: the first of the partition is 0, and no number is left out.
        segment: the number of the first entry in its segment, which names the file.
        offset: of its frame in that file, in bytes.
        digest: the first 4 bytes of its checksum, hexadecimal: after a loss of power that took entries another entry
            may lie at the same place, and a reader has to notice.
    """

    entry: int
    segment: int
    offset: int
    digest: str

    def __str__(self) -> str:
        return f"{self.entry}.{self.segment}.{self.offset}.{self.digest}"

    @classmethod
    def parse(cls, text: str, **path: object) -> Position:
        """Raises EventLogError if it is not the position of any folder log."""
        found = _TEXT.fullmatch(text)
        if found is None:
            raise EventLogError(f"{text[:80]!r} is no position of a folder log: entry.segment.offset.digest", **path)
        return cls(int(found[1]), int(found[2]), int(found[3]), found[4])

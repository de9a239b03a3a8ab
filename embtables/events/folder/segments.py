"""The files of a partition: `<20 digits>.events`, named by the number of their first entry."""

from __future__ import annotations

import re
from pathlib import Path

_NAME = re.compile(r"([0-9]{20})\.events")


def segment_path(folder: Path, first_entry: int) -> Path:
    """The file of the segment that begins with this entry."""
    return folder / f"{first_entry:020d}.events"


def segments(folder: Path) -> list[int]:
    """The first entries of all segments that there are, ascending."""
    return sorted(int(found[1]) for path in folder.iterdir() if (found := _NAME.fullmatch(path.name)))

"""Bad rows that were set aside: counted by cause, the first ones of each cause written down."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

MAX_LISTED = 1_000


def _list_name(rank: int) -> str:
    return f"rows.{rank}.jsonl" if rank else "rows.jsonl"


def begin_list(folder: Path, rank: int) -> None:
    """Removes a rank's list of an earlier pass over the same rows."""
    (folder / _list_name(rank)).unlink(missing_ok=True)


class Quarantine:
    """Counts and lists rows that were left out. With a folder, `rows.jsonl` in it names them, up to 1,000 per cause.

    With several ranks, each lists its own rows, which no other rank looks at, in its own file: `rows.1.jsonl`.
    """

    def __init__(self, folder: Path | None, rank: int = 0) -> None:
        self._folder = folder
        self._name = _list_name(rank)
        self.counts: Counter[str] = Counter()

    def add(self, column: str, reason: str, places: list[tuple[str, int]]) -> None:
        """Rows (file, row within it) that share a fault."""
        cause = f"{column}: {reason}"
        listed = places[: max(0, MAX_LISTED - self.counts[cause])]
        self.counts[cause] += len(places)
        if self._folder is None or not listed:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / self._name).open("a", encoding="utf-8") as out:
            for file, row in listed:
                out.write(json.dumps({"file": file, "row": row, "column": column, "reason": reason}) + "\n")

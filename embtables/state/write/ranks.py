"""What several ranks hold of the same tables. A rank owns a range of the key space's 1,024 buckets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import xxhash

from embtables.errors import StateError
from embtables.keyspace import Buckets
from embtables.rows.content import TableContent


@dataclass(frozen=True, slots=True)
class RankPart:
    """What one rank holds: for each table, by name, only the keys of its buckets [first, end)."""

    buckets: Buckets
    tables: Mapping[str, TableContent]


def shared_of(content: TableContent) -> dict[str, Any]:
    """What ranks that step together have alike of a table, as JSON: clock, steps, scale, checksums of the cold row."""
    return {
        "now": content.now,
        "steps": content.steps,
        "updates": content.updates,
        "scale": content.scale,
        "cold": {name: xxhash.xxh3_128_hexdigest(values.tobytes()) for name, values in content.cold.items()},
        "sketch": len(content.sketch),
    }


def check_agreed(ranks: Sequence[Mapping[str, Any]], table: str) -> None:
    """Raises StateError if ranks differ in what they share of a table (`shared_of`)."""
    one = ranks[0]
    for rank, other in enumerate(ranks):
        for name in ("now", "steps", "updates", "scale"):
            if other[name] != one[name]:
                reason = f"rank {rank} has {name} {other[name]}, rank 0 has {one[name]}: ranks step together"
                raise StateError(reason, table=table)
        for name in sorted(one["cold"].keys() | other["cold"].keys()):
            if one["cold"].get(name) != other["cold"].get(name):
                raise StateError(f"rank {rank} has another cold row ({name}) than rank 0", table=table)
        if one["sketch"] != other["sketch"]:
            raise StateError(f"rank {rank} counts its waiting keys in another way than rank 0", table=table)

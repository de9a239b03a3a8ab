"""What several ranks hold of the same tables. A rank owns a range of the key space's 1,024 buckets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xxhash

from embtables.errors import StateError
from embtables.state.content import Keys, TableContent, bucket_offsets, buckets_of
from embtables.state.manifest import Buckets, check_tiles
from embtables.state.sketch import restricted


@dataclass(frozen=True, slots=True)
class RankPart:
    """What one rank holds: of each table, by name, the keys of its buckets [first, end) alone."""

    buckets: Buckets
    tables: Mapping[str, TableContent]


def restrict(content: TableContent, seed: int, buckets: Buckets) -> TableContent:
    """What of a content lies in buckets [first, end), with the cold row and the clock as they are. Copies no rows."""
    begins = bucket_offsets(content.keys, seed) if content.begins is None else content.begins
    first, end = (int(begins[bucket]) for bucket in buckets)
    rows, waiting = slice(first, end), _within(content.waiting, seed, buckets)
    gone = buckets_of(content.tombstones, seed)
    return replace(
        content,
        keys=content.keys[rows],
        parts={name: values[rows] for name, values in content.parts.items()},
        seen=content.seen[rows],
        counts=content.counts[rows],
        tombstones=content.tombstones[(gone >= buckets[0]) & (gone < buckets[1])],
        waiting=content.waiting[waiting],
        waiting_counts=content.waiting_counts[waiting],
        waiting_seen=content.waiting_seen[waiting],
        sketch=restricted(content.sketch, *buckets) if len(content.sketch) else content.sketch,
        begins=np.clip(begins, first, end) - np.uint64(first),
        streamed={name: column.rows(first, end) for name, column in content.streamed.items()},
    )


def _within(keys: Keys, seed: int, buckets: Buckets) -> slice:
    """Where the keys of these buckets lie among keys in the order of buckets."""
    return slice(*np.searchsorted(buckets_of(keys, seed), buckets).tolist())


def check_ranges(parts: Sequence[RankPart]) -> None:
    """Raises StateError where the parts, in their order, are not the whole key space, each bucket once."""
    try:
        check_tiles([part.buckets for part in parts])
    except ValueError as error:
        raise StateError(str(error)) from None


def check_keys(keys: Keys, seed: int, buckets: Buckets, **path: object) -> None:
    """Raises StateError where keys, in the order of buckets, are not all of buckets [first, end)."""
    for key in keys[[0, -1]] if len(keys) else []:
        bucket = int(buckets_of(np.array([key]), seed)[0])
        if not buckets[0] <= bucket < buckets[1]:
            raise StateError(f"key {key} is of bucket {bucket}, expected {buckets[0]}..{buckets[1] - 1}", **path)


def shared_of(content: TableContent) -> dict[str, Any]:
    """What ranks that step together have alike of a table, as JSON: its clock and steps, checksums of the cold row."""
    return {
        "now": content.now,
        "steps": content.steps,
        "updates": content.updates,
        "cold": {name: xxhash.xxh3_128_hexdigest(values.tobytes()) for name, values in content.cold.items()},
        "sketch": len(content.sketch),
    }


def check_agreed(ranks: Sequence[Mapping[str, Any]], table: str) -> None:
    """Raises StateError where ranks differ in what they share of a table (`shared_of`): clock, steps, the cold row."""
    one = ranks[0]
    for rank, other in enumerate(ranks):
        for name in ("now", "steps", "updates"):
            if other[name] != one[name]:
                reason = f"rank {rank} has {name} {other[name]}, rank 0 has {one[name]}: ranks step together"
                raise StateError(reason, table=table)
        for name in sorted(one["cold"].keys() | other["cold"].keys()):
            if one["cold"].get(name) != other["cold"].get(name):
                raise StateError(f"rank {rank} has another cold row ({name}) than rank 0", table=table)
        if one["sketch"] != other["sketch"]:
            raise StateError(f"rank {rank} counts its waiting keys otherwise than rank 0", table=table)

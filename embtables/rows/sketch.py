"""The count sketch of waiting keys as columns, a row for each bucket, and back.

In memory it is one array of bytes: for each bucket of the key space three uint32 (span, keys met, current half), then
for each bucket two halves of 64-byte blocks of counters (embtables/native/keys/count_sketch.h).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from embtables.keyspace import NUM_BUCKETS
from embtables.schema.tables import MinCount, Table

HEADS = ("span", "met", "current")
_HEAD_BYTES = 4 * len(HEADS) * NUM_BUCKETS

Bytes = npt.NDArray[np.uint8]
Words = npt.NDArray[np.uint32]


def counter_bytes(table: Table) -> int | None:
    """Bytes of a bucket's counters, both halves; None if the table has no sketch."""
    admission = getattr(table, "admission", None)
    if not isinstance(admission, MinCount) or admission.counting != "sketch":
        return None
    bits = 4 if admission.count < 16 else 8 if admission.count < 256 else 16
    keys = -(-admission.max_waiting // (2 * NUM_BUCKETS))  # of a half
    return 2 * 64 * -(-keys // (64 // bits))


def columns(sketch: Bytes) -> tuple[Words, Bytes]:
    """Heads (1,024, 3) and counters (1,024, W) of a sketch; views of it."""
    heads = sketch[:_HEAD_BYTES].view(np.uint32).reshape(NUM_BUCKETS, len(HEADS))
    return heads, sketch[_HEAD_BYTES:].reshape(NUM_BUCKETS, -1)


def empty(width: int) -> Bytes:
    """A sketch of nothing, W bytes of counters for each bucket."""
    return np.zeros(_HEAD_BYTES + NUM_BUCKETS * width, np.uint8)


def restricted(sketch: Bytes, first: int, end: int) -> Bytes:
    """A copy that knows of keys in buckets [first, end) alone."""
    found = np.zeros_like(sketch)
    (heads, counters), (all_heads, all_counters) = columns(found), columns(sketch)
    heads[first:end], counters[first:end] = all_heads[first:end], all_counters[first:end]
    return found

"""What a version holds of one table, in memory: numpy arrays in the order of the key space's buckets.

Shape letters: n rows, m waiting keys, t tombstones, D dim.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from embtables.ids.mix import seeded_mix
from embtables.state.arrow_writer import Streamed

NUM_BUCKETS = 1024
_BUCKET_SHIFT = np.uint64(54)

Keys = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint32]
Floats = npt.NDArray[np.float32]
Offsets = npt.NDArray[np.int64]


def _no_keys() -> Keys:
    return np.empty(0, np.int64)


def _no_words() -> Words:
    return np.empty(0, np.uint32)


@dataclass
class TableContent:
    """Rows of a table, or those that changed since a cut.

    Attributes:
        keys: (n,), by bucket and then by value; of a fixed table row indices.
        parts: weight (n, D) and optimizer state, (n, D) or (n,).
        seen: (n,) the clock at each row's last sight; zeros of a fixed table.
        counts: (n,) gradients that each row has had.
        tombstones: (t,) keys that have lost their row since the cut, in any order.
        waiting, waiting_counts, waiting_seen: (m,) all keys that wait, whatever the cut.
        sketch: the counts of waiting keys where they are in a sketch, uint8.
        cold: the cold row's parts, (1, D) or (1,); empty of a fixed table.
        now, steps: the table's clock and its steps.
        updates: Adam's t.
        begins: (1,025,) where each bucket begins among keys, where that is known already.
        streamed: parts and `count` that are made while they are written, and are not in `parts` and `counts`.
    """

    keys: Keys
    parts: dict[str, Floats]
    seen: Words
    counts: Words
    tombstones: Keys = field(default_factory=_no_keys)
    waiting: Keys = field(default_factory=_no_keys)
    waiting_counts: Words = field(default_factory=_no_words)
    waiting_seen: Words = field(default_factory=_no_words)
    sketch: npt.NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))
    cold: dict[str, Floats] = field(default_factory=dict)
    now: int = 0
    steps: int = 0
    updates: int = 0
    begins: npt.NDArray[np.uint64] | None = None
    streamed: dict[str, Streamed] = field(default_factory=dict)

    def gathered(self) -> TableContent:
        """The same with nothing streamed; takes the memory of all columns."""
        whole = {name: np.concatenate([np.copy(p) for p in column.pieces()]) for name, column in self.streamed.items()}
        counts = whole.pop("count", self.counts)
        return replace(self, parts=self.parts | whole, counts=counts, streamed={})


def bucket_order(keys: Keys, seed: int) -> npt.NDArray[Any]:
    """The order of keys by bucket and value, (n,) indices."""
    return np.lexsort((keys, buckets_of(keys, seed)))


def buckets_of(keys: Keys, seed: int) -> npt.NDArray[np.uint16]:
    """The bucket of each key, (n,): the top ten bits of the mix of (table seed, key)."""
    return (seeded_mix(keys, seed) >> _BUCKET_SHIFT).astype(np.uint16)


def bucket_offsets(keys: Keys, seed: int) -> npt.NDArray[np.uint64]:
    """Where each bucket begins among keys in that order, (1,025,)."""
    counts = np.bincount(buckets_of(keys, seed), minlength=NUM_BUCKETS)
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.uint64)

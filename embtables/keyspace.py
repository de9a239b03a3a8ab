"""The key space: 64-bit keys in 1,024 buckets, the unit that ranks own and files are sorted by.

    seed = table_seed(run's seed, table's name)        bucket = the top ten bits of the mix of (seed, key)

A rank owns a range of buckets, so any number of ranks reads what any other number has written. The number of buckets
is part of the format of files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from embtables.errors import StateError
from embtables.ids.mix import seeded_mix

Keys = npt.NDArray[np.int64]
Offsets = npt.NDArray[np.int64]
Buckets = tuple[int, int]
"""A range [first, end) of buckets."""

NUM_BUCKETS = 1024
ALL_BUCKETS: Buckets = (0, NUM_BUCKETS)
_BUCKET_SHIFT = np.uint64(54)


def table_seed(seed: int, table: str) -> int:
    """The 64-bit seed of a table: from the run's seed and the table's name, so tables differ."""
    digest = hashlib.blake2b(f"{seed}/{table}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def buckets_of(keys: Keys, seed: int) -> npt.NDArray[np.uint16]:
    """The bucket of each key, (n,): the top ten bits of the mix of (table seed, key)."""
    return (seeded_mix(keys, seed) >> _BUCKET_SHIFT).astype(np.uint16)


def bucket_order(keys: Keys, seed: int) -> npt.NDArray[Any]:
    """The order of keys by bucket and value, (n,) indices."""
    return np.lexsort((keys, buckets_of(keys, seed)))


def bucket_offsets(keys: Keys, seed: int) -> npt.NDArray[np.uint64]:
    """Where each bucket begins among keys in that order, (1,025,)."""
    counts = np.bincount(buckets_of(keys, seed), minlength=NUM_BUCKETS)
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.uint64)


def check_tiles(ranges: Sequence[Buckets]) -> None:
    """Ranges of buckets, by rank, are the whole key space. Raises ValueError if not."""
    at = 0
    for rank, (first, end) in enumerate(ranges):
        if first != at or end <= first:
            raise ValueError(f"rank {rank} has the buckets {first}..{end}, expected a range that begins at {at}")
        at = end
    if at != NUM_BUCKETS:
        raise ValueError(f"the {len(ranges)} ranks end at bucket {at}, expected {NUM_BUCKETS}")


def check_keys(keys: Keys, seed: int, buckets: Buckets, **path: object) -> None:
    """Raises StateError if keys, in the order of buckets, are not all of these buckets."""
    for key in keys[[0, -1]] if len(keys) else []:
        bucket = int(buckets_of(np.array([key]), seed)[0])
        if not buckets[0] <= bucket < buckets[1]:
            raise StateError(f"key {key} is of bucket {bucket}, expected {buckets[0]}..{buckets[1] - 1}", **path)

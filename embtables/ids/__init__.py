"""Ids: the string hash, and one encoder a file (pure functions int64 ids -> keys). `encode` is the one way in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from embtables.ids.cross import cross_ids
from embtables.ids.hash import hash_keys
from embtables.ids.identity import identity_keys
from embtables.ids.mix import Ids, seeded_unmix
from embtables.ids.multi_hash import multi_hash_keys
from embtables.schema import Encoder, Hash, Identity, MultiHash

__all__ = ["ENCODERS", "cross_ids", "decode", "encode", "keys_per_id"]

ENCODERS: dict[str, Callable[[Any, Ids, int | None, str], Ids]] = {
    "identity": identity_keys,
    "hash": hash_keys,
    "multi_hash": multi_hash_keys,
}


def encode(encoder: Encoder, ids: Ids, key_range: int | None, feature: str) -> Ids:
    """Keys of `ids` (n,): (n * keys_per_id,) int64 in 0..key_range-1, or any 64-bit integers where that is None."""
    return ENCODERS[encoder.kind](encoder, ids, key_range, feature)


def decode(encoder: Encoder, keys: Ids, key_range: int | None) -> Ids | None:
    """The ids (n,) that `encode` turned into these keys (n,); None where several ids may have the same key."""
    if isinstance(encoder, Identity) and (key_range is None or encoder.out_of_range == "error"):
        return keys
    if isinstance(encoder, Hash) and key_range is None:
        return seeded_unmix(keys.view(np.uint64), encoder.seed)
    return None


def keys_per_id(encoder: Encoder) -> int:
    """T: how many rows one id reads."""
    return encoder.num_hashes if isinstance(encoder, MultiHash) else 1

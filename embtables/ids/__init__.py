"""Ids: the string hash, and one encoder a file (pure functions int64 ids -> keys). `encode` is the one way in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from embtables.ids.cross import cross_ids
from embtables.ids.hash import hash_keys
from embtables.ids.identity import identity_keys
from embtables.ids.mix import Ids
from embtables.ids.multi_hash import multi_hash_keys
from embtables.schema import Encoder, MultiHash

__all__ = ["ENCODERS", "cross_ids", "encode", "keys_per_id"]

ENCODERS: dict[str, Callable[[Any, Ids, int | None, str], Ids]] = {
    "identity": identity_keys,
    "hash": hash_keys,
    "multi_hash": multi_hash_keys,
}


def encode(encoder: Encoder, ids: Ids, key_range: int | None, feature: str) -> Ids:
    """Keys of `ids` (n,): (n * keys_per_id,) int64 in 0..key_range-1, or any 64-bit integers where that is None."""
    return ENCODERS[encoder.kind](encoder, ids, key_range, feature)


def keys_per_id(encoder: Encoder) -> int:
    """T: how many rows one id reads."""
    return encoder.num_hashes if isinstance(encoder, MultiHash) else 1

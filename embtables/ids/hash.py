"""hash: key = uint64(mix(seed, id)), modulo the key range where there is one."""

from __future__ import annotations

from embtables.ids.mix import Ids, reduced, seeded_mix
from embtables.schema import Hash


def hash_keys(encoder: Hash, ids: Ids, key_range: int | None, feature: str) -> Ids:
    """Ids (n,) int64, any value -> keys (n,) in 0..key_range-1, or 64-bit keys."""
    return reduced(seeded_mix(ids, encoder.seed), key_range)

"""multi_hash: T independent hashes of an id into one table, whose rows are summed.

Tito Svenstrup, Hansen and Winther 2017, "Hash embeddings for efficient word representations", section 2, without the
importance weights: two ids share their whole embedding only if all T hashes collide.
"""

from __future__ import annotations

import numpy as np

from embtables.ids.mix import Ids, mix, reduced, seeded_mix
from embtables.schema import MultiHash

_STEP = np.uint64(0xD1B54A32D192ED03)  # odd, so that the T words of an id differ


def multi_hash_keys(encoder: MultiHash, ids: Ids, key_range: int | None, feature: str) -> Ids:
    """Ids (n,) int64 -> keys (n * T,): the T keys of an id lie side by side."""
    base = seeded_mix(ids, encoder.seed)
    numbers = np.arange(encoder.num_hashes, dtype=np.uint64) * _STEP
    words = mix(base[:, None] + numbers[None, :])  # (n, T)
    return reduced(words, key_range).ravel()

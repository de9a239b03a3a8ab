"""hash: key = uint64(mix(seed, id)) mod num_rows."""

from __future__ import annotations

import numpy as np

from embtables.ids.mix import Ids, seeded_mix
from embtables.schema import Hash


def hash_keys(encoder: Hash, ids: Ids, num_rows: int, feature: str) -> Ids:
    """Ids (n,) int64, any value -> keys (n,) in 0..num_rows-1."""
    return (seeded_mix(ids, encoder.seed) % np.uint64(num_rows)).view(np.int64)

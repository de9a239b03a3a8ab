"""cross: the ids of several columns of a row become one id; the order of the columns matters."""

from __future__ import annotations

import numpy as np

from embtables.ids.mix import Ids, UInts, mix, seeded_mix


def cross_ids(*arrays: Ids) -> Ids:
    """Aligned id arrays (n,) int64 -> crossed ids (n,) int64 over the whole 64-bit range.

    h_0 = mix(id_0), h_k = mix(h_{k-1} + seeded_mix(id_k, k)): 64-bit, so distinct combinations share an id about once
    in 2^64 / n^2.
    """
    combined: UInts = seeded_mix(arrays[0], 0)
    for position, ids in enumerate(arrays[1:], start=1):
        combined = mix(combined + seeded_mix(ids, position))
    return combined.view(np.int64)

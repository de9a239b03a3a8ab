"""identity: key = id, for ids that are row indices already."""

from __future__ import annotations

import numpy as np

from embtables.errors import DataError
from embtables.ids.mix import Ids
from embtables.schema import Identity


def identity_keys(encoder: Identity, ids: Ids, key_range: int | None, feature: str) -> Ids:
    """Ids (n,) int64 -> keys (n,) in 0..key_range-1, or the ids where the table takes any key.

    Raises:
        DataError: an id is out of range and the encoder does not wrap; names the feature and the id.
    """
    if key_range is None:
        return ids
    unsigned = ids.view(np.uint64)
    outside = unsigned >= np.uint64(key_range)
    if not outside.any():
        return ids
    if encoder.out_of_range == "error":
        first = int(ids[int(np.argmax(outside))])
        raise DataError(
            f"id {first} is outside 0..{key_range - 1} ({int(outside.sum())} such ids in the batch); raise the table's "
            "num_rows, use the hash encoder, or set out_of_range: modulo",
            feature=feature,
        )
    return (unsigned % np.uint64(key_range)).view(np.int64)

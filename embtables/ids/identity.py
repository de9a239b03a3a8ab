"""identity: key = id, for ids that are row indices already."""

from __future__ import annotations

from typing import Any

import numpy as np

from embtables.errors import DataError
from embtables.ids.artifacts import Artifacts
from embtables.ids.encoder import Encoder, EncoderSpec
from embtables.ids.mix import Ids
from embtables.schema import Identity


class IdentityEncoder(Encoder[Identity]):
    """Ids (n,) int64 -> keys (n,) in 0..key_range-1, or the ids if the table takes any key."""

    def __init__(
        self, config: Identity, key_range: int | None, feature: str = "", artifacts: Artifacts | None = None
    ) -> None:
        super().__init__(config, key_range, feature, artifacts)
        wraps = config.out_of_range == "modulo"
        self.collisions = "unknown" if wraps else "none"
        self.uses_key_range = wraps

    def keys(self, ids: Ids) -> Ids:
        """See Encoder.

        Raises:
            DataError: an id is out of range and the encoder does not wrap; names the feature and the id.
        """
        if self.key_range is None:
            return ids
        unsigned = ids.view(np.uint64)
        outside = unsigned >= np.uint64(self.key_range)
        if not outside.any():
            return ids
        if self.config.out_of_range == "error":
            first = int(ids[int(np.argmax(outside))])
            raise DataError(
                f"id {first} is outside 0..{self.key_range - 1} ({int(outside.sum())} such ids in the batch); raise "
                "the table's num_rows, use the hash encoder, or set out_of_range: modulo",
                feature=self.feature,
            )
        return (unsigned % np.uint64(self.key_range)).view(np.int64)

    def decode(self, keys: Ids) -> Ids | None:
        """See Encoder."""
        return keys if self.key_range is None or self.config.out_of_range == "error" else None

    def meaning(self) -> Any:
        """See Encoder. What becomes of an id that is out of range does not change the keys of those that are not."""
        return self.config.model_dump(mode="json", exclude={"out_of_range"})


SPEC = EncoderSpec(Identity, IdentityEncoder)

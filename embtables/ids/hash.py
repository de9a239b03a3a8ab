"""hash: key = uint64(mix(seed, id)), modulo the key range if there is one."""

from __future__ import annotations

import numpy as np

from embtables.ids.encoder import Encoder, EncoderSpec
from embtables.ids.mix import Ids, reduced, seeded_mix, seeded_unmix
from embtables.schema import Hash


class HashEncoder(Encoder[Hash]):
    """Ids (n,) int64, any value -> keys (n,) in 0..key_range-1, or 64-bit keys."""

    collisions = "random"

    def keys(self, ids: Ids) -> Ids:
        """See Encoder."""
        return reduced(seeded_mix(ids, self.config.seed), self.key_range)

    def decode(self, keys: Ids) -> Ids | None:
        """See Encoder."""
        return seeded_unmix(keys.view(np.uint64), self.config.seed) if self.key_range is None else None


SPEC = EncoderSpec(Hash, HashEncoder)

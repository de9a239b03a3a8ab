"""multi_hash: T independent hashes of an id into one table, whose rows are combined, by default summed.

Tito Svenstrup, Hansen and Winther 2017, "Hash embeddings for efficient word representations", section 2, without the
importance weights: two ids share their whole embedding only if all T hashes collide.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from embtables.ids.artifacts import Artifacts
from embtables.ids.encoder import Encoder, EncoderSpec
from embtables.ids.mix import Ids, mix, reduced, seeded_mix
from embtables.schema import MultiHash

_STEP = np.uint64(0xD1B54A32D192ED03)  # odd, so that the T words of an id differ


class MultiHashEncoder(Encoder[MultiHash]):
    """Ids (n,) int64, any value -> keys (n, T)."""

    collisions = "random"

    def __init__(
        self, config: MultiHash, key_range: int | None, feature: str = "", artifacts: Artifacts | None = None
    ) -> None:
        super().__init__(config, key_range, feature, artifacts)
        self.num_keys, self.combine = config.num_hashes, config.combine
        self._numbers = np.arange(config.num_hashes, dtype=np.uint64) * _STEP

    def keys(self, ids: Ids) -> Ids:
        """See Encoder."""
        base = seeded_mix(ids, self.config.seed)
        return reduced(mix(base[:, None] + self._numbers[None, :]), self.key_range)

    def meaning(self) -> Any:
        """See Encoder. Rows that were trained as summands are no factors."""
        return {**self.config.model_dump(mode="json"), "combine": self.config.combine}


SPEC = EncoderSpec(MultiHash, MultiHashEncoder)

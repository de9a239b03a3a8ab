"""`Batch`: what the features stage makes of rows of a log, and what a model trains on."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor


@dataclass(frozen=True, slots=True)
class Batch:
    """B rows of a log. Shape letters: B rows, N ids.

    Attributes:
        ids: raw ids, int64, one key a feature in schema order, stride B. If any feature has per-id weights the KJT
            carries float32 weights for all (1.0 where a feature has none).
        dense: (B, n_dense) float32, transformed.
        labels: (B, n_labels) float32, each 0 or 1.
        weight: (B,) float32 sample weights, or None where the schema names none.
        event_time_us: (B,) int64 microseconds since 1970-01-01 UTC, or None where the schema names none.
    """

    ids: KeyedJaggedTensor
    dense: Tensor
    labels: Tensor
    weight: Tensor | None
    event_time_us: Tensor | None

    @property
    def num_rows(self) -> int:
        """B."""
        return self.dense.shape[0]

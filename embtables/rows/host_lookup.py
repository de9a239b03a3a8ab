"""What the native row store keeps of a lookup until its gradients come."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embtables.rows.protocol import Segments

Rows = npt.NDArray[np.uint32]
Counts = npt.NDArray[np.int32] | None


@dataclass(frozen=True, slots=True)
class Context:
    """A lookup whose backward may come, and the evictions there had been before it."""

    slots: npt.NDArray[np.int32]
    rows: Rows
    offsets: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float32] | None
    num_bags: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Resolved:
    """What ranks asked for."""

    lookup: Context  # all keys of a slot are one bag
    segments: Segments
    counts: Counts  # how often each key occurred

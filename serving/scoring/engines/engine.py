"""`Engine`: what computes scores of the inputs of a dense net."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from embtables.models.dense_net import DenseNet
from embtables.models.task import Task

Float32s = npt.NDArray[np.float32]


class Engine(Protocol):
    """Computes scores by one version's dense weights; used by any thread. Shape letters: N rows."""

    @property
    def name(self) -> str:
        """What `/v1/model` calls it."""

    def padded(self, rows: int) -> int:
        """N: how many rows its inputs must have to hold so many."""

    def scores(self, inputs: Sequence[Float32s]) -> Float32s:
        """Inputs of the dense net (N, width) -> scores (N, n_labels)."""

    def with_net(self, net: DenseNet, task: Task[Any]) -> Engine:
        """The same engine for another version's weights of the same layers.

        Raises:
            ConfigError: the layers are other ones.
        """

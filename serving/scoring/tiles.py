"""`Tiles`: scores of rows in tiles of one size, so that a row's score does not depend on the rows beside it.

A matrix product rounds differently for other numbers of rows. Here every product has TILE rows, the last ones of a
batch padded; a row's place in its tile does not matter. Shape letters: N rows, a multiple of TILE.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from embtables.models.dense_net import DenseNet
from embtables.models.task import Task

TILE = 64
Float32s = npt.NDArray[np.float32]


def padded(rows: int) -> int:
    """The least multiple of TILE that holds so many rows."""
    return -(-rows // TILE) * TILE


class Tiles:
    """Scores by torch, in fp32 (or in the precision that the version was trained for).

    Args:
        net: the layers.
        task: makes scores of their outputs.
        autocast: they compute in bf16.
    """

    name = "torch"

    def __init__(self, net: DenseNet, task: Task[Any], *, autocast: bool = False) -> None:
        self._net, self._task, self._autocast = net, task, autocast

    @torch.no_grad()
    def scores(self, inputs: Sequence[Float32s]) -> Float32s:
        """Inputs of the dense net (N, width) -> scores (N, n_labels)."""
        tensors = [torch.from_numpy(each) for each in inputs]
        rows = len(inputs[0])
        found = []
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self._autocast):
            for start in range(0, rows, TILE):
                outputs = self._net(*(each[start : start + TILE] for each in tensors))
                found.append(self._task.scores(outputs.float()))
        scores: Float32s = (found[0] if len(found) == 1 else torch.cat(found)).numpy()
        return scores

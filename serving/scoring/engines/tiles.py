"""`Tiles`: scores in tiles of rows of one size, so that a row's score does not depend on the rows beside it.

A matrix product rounds differently for other numbers of rows. Here every product has TILE rows, the last ones of a
batch padded; a row's place in its tile does not matter. Shape letters: N rows, a multiple of TILE.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from embtables.models.dense_net import DenseNet
from embtables.models.task import Task
from embtables.serving.scoring.engines.engine import Float32s

# A hundred candidates are one tile, and its products are large enough to be fast.
TILE = 128


def padded(rows: int) -> int:
    """The least multiple of TILE that holds so many rows."""
    return -(-rows // TILE) * TILE


class Tiles:
    """Torch, eager, in fp32 (or in the precision that the version was trained for): the engine of `exact`.

    Args:
        net: the layers.
        task: makes scores of their outputs.
        autocast: they compute in bf16.
    """

    name = "torch"

    def __init__(self, net: DenseNet, task: Task[Any], *, autocast: bool = False) -> None:
        self._net, self._task, self._autocast = net, task, autocast

    def padded(self, rows: int) -> int:
        """See Engine."""
        return padded(rows)

    @torch.no_grad()
    def scores(self, inputs: Sequence[Float32s]) -> Float32s:
        """See Engine."""
        tensors = [torch.from_numpy(each) for each in inputs]
        found = []
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self._autocast):
            for start in range(0, len(inputs[0]), TILE):
                outputs = self._net(*(each[start : start + TILE] for each in tensors))
                found.append(self._task.scores(outputs.float()))
        scores: Float32s = (found[0] if len(found) == 1 else torch.cat(found)).numpy()
        return scores

    def with_net(self, net: DenseNet, task: Task[Any]) -> Tiles:
        """See Engine."""
        return Tiles(net, task, autocast=self._autocast)

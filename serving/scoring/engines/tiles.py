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
from embtables.serving.scoring.engines.steps import steps_of

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
        self._task, self._autocast = task, autocast
        # In bf16 the module itself says what is computed in which precision.
        self._outputs = net if autocast else steps_of(net)

    def padded(self, rows: int) -> int:
        """See Engine."""
        return padded(rows)

    @torch.inference_mode()
    def scores(self, inputs: Sequence[Float32s]) -> Float32s:
        """See Engine."""
        tensors = [torch.from_numpy(each) for each in inputs]
        rows = len(inputs[0])
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self._autocast):
            found = [
                self._task.scores(self._outputs(*(each[start : start + TILE] for each in tensors)).float())
                for start in range(0, rows, TILE)
            ]
        scores: Float32s = (found[0] if len(found) == 1 else torch.cat(found)).numpy()
        return scores

    def with_net(self, net: DenseNet, task: Task[Any]) -> Tiles:
        """See Engine."""
        return Tiles(net, task, autocast=self._autocast)

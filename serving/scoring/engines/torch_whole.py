"""`TorchWhole`: torch, eager, all rows of a batch in one product; in fp32 or bf16. Shape letters: N rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from embtables.models.dense_net import DenseNet
from embtables.models.task import Task
from embtables.serving.scoring.engines.engine import Float32s


class TorchWhole:
    """See above.

    Args:
        net: the layers.
        task: makes scores of their outputs.
        bf16: products are computed in bf16.
    """

    def __init__(self, net: DenseNet, task: Task[Any], *, bf16: bool) -> None:
        self.name = "torch bf16" if bf16 else "torch fp32"
        self._net, self._task, self._bf16 = net, task, bf16

    def padded(self, rows: int) -> int:
        """See Engine."""
        return rows

    @torch.no_grad()
    def scores(self, inputs: Sequence[Float32s]) -> Float32s:
        """See Engine."""
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self._bf16):
            outputs = self._net(*(torch.from_numpy(each) for each in inputs))
        scores: Float32s = self._task.scores(outputs.float()).numpy()
        return scores

    def with_net(self, net: DenseNet, task: Task[Any]) -> TorchWhole:
        """See Engine."""
        return TorchWhole(net, task, bf16=self._bf16)

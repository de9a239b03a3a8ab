"""`OnnxRuntime`: the dense net in onnxruntime, in fp32, or with weights in int8 (quantised by tensor, activations as
they come). Shape letters: N rows.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from embtables.models.dense_net import DenseNet
from embtables.models.onnx_export import need_onnx, run, session_of, with_weights
from embtables.models.task import Task
from embtables.serving.scoring.engines.engine import Float32s


class OnnxRuntime:
    """See above. Each thread that scores computes on its own.

    Args:
        model: the net as ONNX, with any version's weights.
        net: the layers with the weights of this version.
        task: makes scores of their outputs.
        int8: weights are quantised.

    Raises:
        ConfigError: the `onnx` extra is not installed, or the model has other layers.
    """

    def __init__(self, model: bytes, net: DenseNet, task: Task[Any], *, int8: bool) -> None:
        self.name = "onnxruntime int8" if int8 else "onnxruntime fp32"
        self._task, self._int8, self._names = task, int8, net.input_names
        self._model = with_weights(model, net)
        self._session = session_of(_quantised(self._model) if int8 else self._model)

    def padded(self, rows: int) -> int:
        """See Engine."""
        return rows

    @torch.no_grad()
    def scores(self, inputs: Sequence[Float32s]) -> Float32s:
        """See Engine."""
        outputs = torch.from_numpy(run(self._session, self._names, inputs))
        scores: Float32s = self._task.scores(outputs).numpy()
        return scores

    def with_net(self, net: DenseNet, task: Task[Any]) -> OnnxRuntime:
        """See Engine."""
        return OnnxRuntime(self._model, net, task, int8=self._int8)


def _quantised(model: bytes) -> bytes:
    """The model with weights in int8."""
    onnx, quantization = need_onnx("onnx", "onnxruntime.quantization")
    logging.getLogger().addFilter(_drop_hint)
    try:
        with tempfile.TemporaryDirectory() as folder:
            written = Path(folder) / "int8.onnx"
            quantization.quantize_dynamic(
                onnx.load_model_from_string(model),
                written,
                weight_type=quantization.QuantType.QInt8,
                reduce_range=True,  # without VNNI, products of full int8 saturate
            )
            return written.read_bytes()
    finally:
        logging.getLogger().removeFilter(_drop_hint)


def _drop_hint(record: logging.LogRecord) -> bool:
    """The quantiser advises on the root logger to pre-process models, which dense nets do not need."""
    return "pre-processing before quantization" not in record.getMessage()

"""`embtables export RUN --onnx FILE`: the dense net of a trained run for other programs, compared with torch.

The tables stay here: whoever runs the model gives it the pooled embeddings of each feature, as `Scorer` looks them up,
and the dense columns after their transforms. Shape letters: B rows.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from embtables.errors import ConfigError, StateError
from embtables.models.dense_net import DenseNet
from embtables.models.onnx_export import ByFeature, need_onnx, onnx_bytes, run, session_of
from embtables.models.scorer import Scorer
from embtables.pipelines.run_dir import write_atomically

GREATEST_ERROR = 1e-5
_ROWS = (1, 64, 100)


def export_onnx(scorer: Scorer, file: Path, version: str) -> dict[str, Any]:
    """Writes the dense net of a scorer's model, whole or not at all.

    The model's inputs are `embedding/<feature>` (B, D) and, of models with first-order weights,
    `first_order/<feature>` (B, 1), then `dense` (B, columns), all float32; its output is `outputs`, logits
    (B, labels). Its metadata say the dense columns' and the labels' order, and the version.

    Args:
        version: its name.

    Returns:
        What was written: file, version, inputs by name and width, labels, greatest_error.

    Raises:
        ConfigError: the model has layers that ONNX has no counterpart for, it is no dense net over pooled embeddings,
            the `onnx` extra is not installed, or what onnxruntime computes differs from torch by more than 1e-5.
        StateError: the file cannot be written.
    """
    need_onnx("onnx", "onnxscript", "onnxruntime")
    schema = scorer.schema
    dense_net = DenseNet(scorer.model, len(schema.dense))
    dense_net.try_out()
    net = ByFeature(dense_net)
    labels = [label.name or label.column for label in schema.labels]
    metadata = {
        "embtables.version": version,
        "embtables.labels": json.dumps(labels),
        "embtables.dense": json.dumps([dense.column for dense in schema.dense]),
    }
    model = onnx_bytes(net, metadata)
    error = _greatest_error(net, model)
    if not error <= GREATEST_ERROR:
        reason = f"onnxruntime's logits differ from torch's by {error:g}, more than {GREATEST_ERROR:g}"
        raise ConfigError(f"{reason}; nothing was written")
    _write(file, model)
    inputs = dict(zip(net.input_names, net.input_widths, strict=True))
    return {
        "file": str(file),
        "version": version,
        "bytes": len(model),
        "inputs": inputs,
        "labels": labels,
        "greatest_error": error,
    }


def _greatest_error(net: ByFeature, model: bytes) -> float:
    """Of logits, over random inputs of several numbers of rows."""
    session, rng, greatest = session_of(model), np.random.default_rng(0), 0.0
    for rows in _ROWS:
        inputs = [rng.normal(size=(rows, width)).astype(np.float32) for width in net.input_widths]
        with torch.no_grad():
            wanted = net(*(torch.from_numpy(each) for each in inputs)).numpy()
        greatest = max(greatest, float(np.abs(run(session, net.input_names, inputs) - wanted).max()))
    return greatest


def _write(file: Path, content: bytes) -> None:
    try:
        write_atomically(file, content)
    except OSError as error:
        raise StateError(f"cannot be written: {error.strerror or error}", file=file) from None

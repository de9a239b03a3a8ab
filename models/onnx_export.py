"""A dense net as an ONNX model. It needs the `onnx` extra, whose packages are imported only here and where it runs.

Shape letters: B rows.
"""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from embtables.errors import ConfigError
from embtables.models.dense_net import DenseNet

OUTPUTS = "outputs"
Float32s = npt.NDArray[np.float32]
_EXAMPLE_ROWS = 3
_NOISY = ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")


class ByFeature(nn.Module):
    """A dense net whose inputs are apart by feature, for whoever computes the embeddings.

    Attributes:
        input_names: `embedding/<feature>`, `first_order/<feature>` and `dense`, in the order of the arguments.
        input_widths: columns of each of them.
    """

    def __init__(self, net: DenseNet) -> None:
        super().__init__()
        self.net = net
        self.groups = [(name, list(spans)) for name, spans in net.spans]
        parts = [(f"{name}/{feature}", width) for name, spans in self.groups for feature, width in spans]
        parts += [("dense", net.num_dense)] if net.num_dense else []
        self.input_names, self.input_widths = tuple(n for n, _ in parts), tuple(w for _, w in parts)
        self.eval()

    def forward(self, *inputs: Tensor) -> Tensor:
        """(B, width) of each of `input_names` -> logits (B, n_labels)."""
        whole, at = list[Tensor](), 0
        for _, spans in self.groups:
            whole.append(torch.cat(inputs[at : at + len(spans)], dim=1))
            at += len(spans)
        outputs: Tensor = self.net(*whole, *inputs[at:])
        return outputs


def need_onnx(*packages: str) -> list[Any]:
    """These packages of the `onnx` extra, imported. Raises ConfigError if one is not installed."""
    try:
        return [importlib.import_module(package) for package in packages]
    except ImportError as error:
        raise ConfigError(f"ONNX needs packages that are not here ({error}): pip install 'embtables[onnx]'") from None


def onnx_bytes(net: DenseNet | ByFeature, metadata: Mapping[str, str] | None = None) -> bytes:
    """A net as a serialised ONNX model with its weights; any number of rows, float32 in and out.

    Args:
        metadata: recorded in the model.

    Raises:
        ConfigError: the `onnx` extra is not installed, or a layer has no counterpart in ONNX.
    """
    need_onnx("onnx", "onnxscript")
    net.eval()
    example = tuple(torch.randn(_EXAMPLE_ROWS, width) for width in net.input_widths)
    rows = torch.export.Dim("rows", min=1, max=1 << 24)
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                net,
                example,
                input_names=list(net.input_names),
                output_names=[OUTPUTS],
                dynamo=True,
                dynamic_shapes={"inputs": tuple({0: rows} for _ in example)},
                optimize=False,  # weights keep their names, so that those of another version can take their place
                verbose=False,
            )
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(f"the model's layers cannot be exported to ONNX: {type(error).__name__} {reason}") from error
    assert program is not None
    model = program.model_proto
    for key, value in (metadata or {}).items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    found: bytes = model.SerializeToString()
    return found


def with_weights(model: bytes, net: DenseNet) -> bytes:
    """The same model with the weights of another net of the same layers.

    Raises:
        ConfigError: its layers are other ones.
    """
    (onnx,) = need_onnx("onnx")
    proto = onnx.load_model_from_string(model)
    tensors = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    for initializer in proto.graph.initializer:
        if initializer.name not in tensors:
            continue
        values = tensors[initializer.name].detach().contiguous().numpy()
        if tuple(initializer.dims) != values.shape:
            raise ConfigError(f"'{initializer.name}' has shape {values.shape}, the model's {tuple(initializer.dims)}")
        initializer.CopyFrom(onnx.numpy_helper.from_array(values, initializer.name))
    found: bytes = proto.SerializeToString()
    return found


def session_of(model: bytes, threads: int = 1) -> Any:
    """An onnxruntime session on the CPU."""
    (runtime,) = need_onnx("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run(session: Any, names: Sequence[str], inputs: Sequence[Float32s]) -> Float32s:
    """Outputs (B, n_labels) of inputs (B, width)."""
    found: Float32s = session.run([OUTPUTS], dict(zip(names, inputs, strict=True)))[0]
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's talk about what it does not find, which is nothing that a user can act on."""
    loggers = [logging.getLogger(name) for name in _NOISY]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

"""Which engine computes the scores of `fast`: each that there is, is timed and compared with `exact`; the fastest whose
error is small is taken.

What is fast differs by machine: bf16 products without AVX512-BF16 are slower by 40 times and more, int8 without VNNI
gains little. Nothing is assumed; rows of real requests decide.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embtables.errors import ConfigError
from embtables.models.dense_net import DenseNet
from embtables.models.onnx_export import onnx_bytes
from embtables.models.task import Task
from embtables.serving.scoring.engines.engine import Engine, Float32s
from embtables.serving.scoring.engines.onnx_runtime import OnnxRuntime
from embtables.serving.scoring.engines.tiles import Tiles
from embtables.serving.scoring.engines.torch_whole import TorchWhole
from embtables.serving.wire import EngineInfo, EngineTried

GREATEST_ERROR = 1e-3
_RUNS = 30
_SECONDS = 1.0  # for an engine that is very slow


@dataclass(frozen=True, slots=True)
class Choice:
    """An engine, and what was found when it was chosen."""

    engine: Engine
    info: EngineInfo


def fastest(
    net: DenseNet, task: Task[Any], inputs: Sequence[Float32s], *, autocast: bool, greatest_error: float
) -> Choice:
    """The fastest engine on these inputs; `exact`'s own is among them.

    Args:
        inputs: of the dense net (N, width): rows of recorded requests, or of a made-up one.
        greatest_error: of a score, against `exact`.
    """
    reference = Tiles(net, task, autocast=autocast)
    wanted = reference.scores(inputs)
    tried: list[EngineTried] = []
    best: tuple[float, Engine] = (_milliseconds(reference, inputs), reference)
    tried.append(EngineTried(reference.name, best[0], 0.0))
    for name, make in _makers(net, task):
        try:
            engine = make()
            error = _error(engine, inputs, wanted)
            if not error <= greatest_error:
                tried.append(EngineTried(name, None, error, f"its error passes {greatest_error:g}"))
                continue
            milliseconds = _milliseconds(engine, inputs)
        except Exception as failure:  # whatever a library fails with, the others are there
            tried.append(EngineTried(name, refused=_reason(failure)))
            continue
        tried.append(EngineTried(name, milliseconds, error))
        if milliseconds < best[0]:
            best = milliseconds, engine
    return Choice(best[1], EngineInfo("fast", best[1].name, tried))


def renewed(
    before: Choice, net: DenseNet, task: Task[Any], inputs: Sequence[Float32s], *, autocast: bool, greatest_error: float
) -> Choice:
    """The engine that was chosen before, with the weights of another version.

    Where its error has become too large, or the layers are other ones, all are tried again.
    """
    try:
        engine = before.engine.with_net(net, task)
        error = _error(engine, inputs, Tiles(net, task, autocast=autocast).scores(inputs))
    except Exception:  # whatever a library fails with: all are tried again
        error = float("inf")
    if error <= greatest_error:
        return Choice(engine, before.info)
    return fastest(net, task, inputs, autocast=autocast, greatest_error=greatest_error)


def _makers(net: DenseNet, task: Task[Any]) -> Iterator[tuple[str, Callable[[], Engine]]]:
    """The engines besides `exact`'s."""
    yield "torch fp32", lambda: TorchWhole(net, task, bf16=False)
    yield "torch bf16", lambda: TorchWhole(net, task, bf16=True)
    model: list[bytes] = []

    def onnx(*, int8: bool) -> Engine:
        if not model:
            model.append(onnx_bytes(net))
        return OnnxRuntime(model[0], net, task, int8=int8)

    yield "onnxruntime fp32", lambda: onnx(int8=False)
    yield "onnxruntime int8", lambda: onnx(int8=True)


def _error(engine: Engine, inputs: Sequence[Float32s], wanted: Float32s) -> float:
    found = engine.scores(inputs)
    return float(np.abs(found - wanted).max(initial=0.0)) if np.isfinite(found).all() else float("inf")


def _milliseconds(engine: Engine, inputs: Sequence[Float32s]) -> float:
    """The median of a few runs, the first ones left out."""
    for _ in range(2):
        engine.scores(inputs)
    taken: list[float] = []
    end = time.perf_counter() + _SECONDS
    while len(taken) < _RUNS and (not taken or time.perf_counter() < end):
        begin = time.perf_counter()
        engine.scores(inputs)
        taken.append(time.perf_counter() - begin)
    return float(np.median(taken)) * 1e3


def _reason(failure: Exception) -> str:
    text = " ".join(str(failure).split())
    return text[:300] if isinstance(failure, ConfigError) else f"{type(failure).__name__}: {text[:300]}"

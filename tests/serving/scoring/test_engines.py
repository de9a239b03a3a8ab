"""Engines compute what the whole model computes; of `fast`, those with large errors are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from embtables.errors import ConfigError
from embtables.models.dense_net import DenseNet
from embtables.models.onnx_export import onnx_bytes
from embtables.serving import wire
from embtables.serving.scoring.engines import choose
from embtables.serving.scoring.engines.onnx_runtime import OnnxRuntime
from embtables.serving.scoring.engines.steps import _steps
from embtables.serving.scoring.engines.tiles import TILE, Tiles
from embtables.serving.scoring.engines.torch_whole import TorchWhole
from embtables.serving.scoring.request_scorer import Answer, RequestScorer
from embtables.serving.versions.served_version import ServedVersion
from tests.serving.scoring.served_for_tests import MODELS, item_name, served_version, side_tables
from tests.serving.scoring.test_request_scorer import CONTEXT

REQUEST = wire.ScoreRequest(context=CONTEXT, candidates=[item_name(n) for n in range(40)])


def net_of(version: ServedVersion) -> DenseNet:
    net = DenseNet(version.scorer.model, len(version.content.trained.dense))
    net.try_out()
    return net


def inputs_of(net: DenseNet, rows: int, seed: int = 0) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(rows, width)).astype(np.float32) for width in net.input_widths]


@pytest.mark.parametrize("model", MODELS)
def test_tiles_compute_the_layers(run_of: Callable[[str], Path], model: str) -> None:
    version = served_version(run_of(model))
    net, task = net_of(version), version.scorer.task
    inputs = inputs_of(net, 2 * TILE)
    with torch.no_grad():
        tiles = [net(*(torch.from_numpy(each[part]) for each in inputs)) for part in (slice(TILE), slice(TILE, None))]
        wanted = task.scores(torch.cat(tiles)).numpy()
    assert Tiles(net, task).scores(inputs).tobytes() == wanted.tobytes()
    whole = TorchWhole(net, task, bf16=False)
    assert whole.padded(5) == 5
    assert np.abs(whole.scores([each[:5] for each in inputs]) - wanted[:5]).max() <= 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_onnxruntime_computes_the_layers(run_of: Callable[[str], Path], model: str) -> None:
    version = served_version(run_of(model))
    net, task = net_of(version), version.scorer.task
    engine, inputs = OnnxRuntime(onnx_bytes(net), net, task, int8=False), inputs_of(net, TILE)
    wanted = Tiles(net, task).scores(inputs)
    assert np.abs(engine.scores([each[:5] for each in inputs]) - wanted[:5]).max() <= 1e-5


@pytest.mark.parametrize("model", MODELS)
def test_a_row_has_one_score_wherever_it_is_in_a_tile(run_of: Callable[[str], Path], model: str) -> None:
    version = served_version(run_of(model))
    net = net_of(version)
    engine, row = Tiles(net, version.scorer.task), inputs_of(net, 1, seed=1)
    alone = engine.scores([np.concatenate([each, np.zeros((TILE - 1, each.shape[1]), np.float32)]) for each in row])[0]
    for place in range(TILE):
        others = inputs_of(net, TILE, seed=2)
        for each, own in zip(others, row, strict=True):
            each[place] = own[0]
        assert engine.scores(others)[place].tobytes() == alone.tobytes()


def test_other_weights_take_the_place_of_those_of_a_model(run_of: Callable[[str], Path]) -> None:
    version = served_version(run_of("stacked"))
    net, other, task = net_of(version), net_of(served_version(run_of("stacked"))), version.scorer.task
    with torch.no_grad():
        for tensor in (*other.layers.parameters(), *(b for b in other.layers.buffers())):
            tensor.add_(0.5)
    inputs = inputs_of(net, TILE)
    engine = OnnxRuntime(onnx_bytes(net), net, task, int8=False)
    assert np.abs(engine.scores(inputs) - Tiles(net, task).scores(inputs)).max() <= 1e-5
    newer = engine.with_net(other, task)
    assert np.abs(newer.scores(inputs) - Tiles(other, task).scores(inputs)).max() <= 1e-5
    assert np.abs(newer.scores(inputs) - engine.scores(inputs)).max() > 1e-3


class Scripted:
    """An engine with a time and an error of its own."""

    def __init__(self, right: Tiles, error: float, name: str = "scripted") -> None:
        self.name, self._right, self._error = name, right, error

    def padded(self, rows: int) -> int:
        return rows

    def scores(self, inputs: Any) -> Any:
        return self._right.scores(inputs) + np.float32(self._error)

    def with_net(self, net: DenseNet, task: Any) -> Scripted:
        if self._error == 0.25:
            raise ConfigError("other layers")
        return Scripted(Tiles(net, task), self._error, self.name)


def test_the_fastest_engine_with_a_small_error_is_taken(zoo: ServedVersion, monkeypatch: pytest.MonkeyPatch) -> None:
    net, task = net_of(zoo), zoo.scorer.task
    right = Tiles(net, task)
    times = {"torch": 5.0, "wrong": 1.0, "slow": 9.0, "quick": 2.0}
    monkeypatch.setattr(choose, "_milliseconds", lambda engine, inputs: times[engine.name])

    def fails() -> Any:
        raise OSError("no such processor")

    def not_finite() -> Any:
        return Scripted(right, float("nan"), "nan")

    makers: list[tuple[str, Callable[[], Any]]] = [
        ("wrong", lambda: Scripted(right, 0.01, "wrong")),
        ("slow", lambda: Scripted(right, 0.0, "slow")),
        ("quick", lambda: Scripted(right, 1e-4, "quick")),
        ("fails", fails),
        ("nan", not_finite),
    ]
    monkeypatch.setattr(choose, "_makers", lambda net, task: iter(makers))
    inputs = inputs_of(net, TILE)
    chosen = choose.fastest(net, task, inputs, autocast=False, greatest_error=1e-3)
    assert (chosen.engine.name, chosen.info.mode, chosen.info.name) == ("quick", "fast", "quick")
    tried = {each.name: each for each in chosen.info.tried}
    assert tried.keys() == {"torch", "wrong", "slow", "quick", "fails", "nan"}
    assert tried["wrong"].refused == "its error passes 0.001"
    assert tried["wrong"].greatest_error == pytest.approx(0.01, rel=1e-3)
    assert tried["quick"].milliseconds == 2.0
    assert tried["fails"].refused == "OSError: no such processor"
    assert tried["nan"].refused == "its error passes 0.001"
    again = choose.renewed(chosen, net, task, inputs, autocast=False, greatest_error=1e-3)
    assert again.engine.name == "quick"
    assert again.engine is not chosen.engine
    stricter = choose.renewed(chosen, net, task, inputs, autocast=False, greatest_error=1e-6)
    assert stricter.engine.name == "torch"
    other_layers = choose.Choice(Scripted(right, 0.25, "other"), chosen.info)
    assert choose.renewed(other_layers, net, task, inputs, autocast=False, greatest_error=1.0).engine.name == "wrong"


@pytest.mark.slow
def test_fast_answers_within_its_bound_and_goes_on_with_its_engine(run_of: Callable[[str], Path]) -> None:
    version = served_version(run_of("dcnv2"), side_tables(), "item")
    exact, fast = RequestScorer(version), RequestScorer(version, mode="fast", greatest_error=1e-3)
    exact.warm()
    fast.warm([REQUEST])
    assert (exact.engine.mode, exact.engine.name, exact.engine.tried) == ("exact", "torch", [])
    names = {each.name for each in fast.engine.tried}
    assert names == {"torch", "torch fp32", "torch bf16", "onnxruntime fp32", "onnxruntime int8"}
    assert fast.engine.name in names
    scores = []
    newer = RequestScorer(version, fast, mode="fast", greatest_error=1e-3)
    newer.warm()
    for scorer in (exact, fast, newer):
        answer = scorer.score_all([REQUEST])[0]
        assert isinstance(answer, Answer)
        scores.append(answer.of.scores)
    assert np.abs(scores[1] - scores[0]).max() <= 1e-3
    assert np.abs(scores[2] - scores[0]).max() <= 1e-3
    assert newer.engine.name == fast.engine.name
    assert newer.engine.tried == fast.engine.tried


@pytest.mark.parametrize("inputs", [139, 1664])
def test_a_linear_layer_has_the_bits_of_the_module(inputs: int) -> None:
    layer = torch.nn.Linear(inputs, 256)
    x = torch.randn(TILE, inputs)
    (step,) = _steps([layer])
    with torch.no_grad():
        assert torch.equal(step(x), layer(x))

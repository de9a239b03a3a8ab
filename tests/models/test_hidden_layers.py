"""Hidden layers: what their options build, and what they write."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional

from embtables.errors import ConfigError
from embtables.models.hidden_layers import HiddenLayers
from embtables.models.kinds.dcnv2 import DcnV2Config
from embtables.models.layers.dropout import Dropout
from embtables.models.layers.mlp import ACTIVATIONS, Mlp
from embtables.schema import config_error
from embtables.shard.world import SingleRank

FORMULAS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": lambda x: x.clamp(min=0),
    "leaky_relu": lambda x: torch.where(x > 0, x, 0.01 * x),
    "prelu": lambda x: torch.where(x > 0, x, 0.25 * x),
    "elu": lambda x: torch.where(x > 0, x, x.exp() - 1),
    "gelu": lambda x: x * 0.5 * (1 + torch.erf(x / 2**0.5)),
    "silu": lambda x: x * torch.sigmoid(x),
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}


def options(**changes: object) -> HiddenLayers:
    return DcnV2Config.model_validate({"hidden_sizes": [4, 3]} | changes)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("normalisation", [None, "batch_norm", "layer_norm"])
def test_a_layer_is_linear_normalised_and_activated(activation: str, normalisation: str | None) -> None:
    net = Mlp(6, options(activation=activation, normalisation=normalisation), SingleRank())
    x = torch.randn(20, 6)
    want = x
    for number in range(2):
        linear = net.net[number * (2 if normalisation is None else 3)]
        want = functional.linear(want, linear.weight, linear.bias)
        axis = {"batch_norm": 0, "layer_norm": 1}.get(normalisation or "")
        if axis is not None:
            var, mean = torch.var_mean(want, dim=axis, correction=0, keepdim=True)
            want = (want - mean) / (var + 1e-5).sqrt()
        want = FORMULAS[activation](want)
    torch.testing.assert_close(net(x), want, atol=1e-5, rtol=1e-4)
    functional.mse_loss(net(x), torch.zeros(20, 3)).backward()
    assert all(p.grad is not None for p in net.parameters())


def test_each_layer_has_its_dropout() -> None:
    net = Mlp(6, options(dropout=[0.0, 0.5]), SingleRank())
    assert [type(part).__name__ for part in net.net] == ["Linear", "ReLU", "Linear", "ReLU", "Dropout"]
    kept = Dropout(0.5)(torch.ones(4000))
    assert (kept == 0).float().mean().item() == pytest.approx(0.5, abs=0.05)
    torch.manual_seed(1)
    out = net.net[:3](torch.randn(500, 6))
    dropped = net.net[4](out)
    assert torch.equal(dropped[dropped != 0], 2 * out[dropped != 0])
    assert (dropped == 0).float().mean().item() == pytest.approx(0.5, abs=0.06)


def test_options_that_are_not_chosen_are_not_written() -> None:
    assert options().model_dump(mode="json") == {
        "kind": "dcnv2",
        "hidden_sizes": [4, 3],
        "dropout": 0.0,
        "structure": "parallel",
        "num_cross_layers": 3,
    }
    chosen = options(dropout=[0.1, 0.2], normalisation="layer_norm", activation="silu")
    assert options(**chosen.model_dump(mode="json")) == chosen


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dropout": 1.0}, "dropout: Input should be less than 1 (received 1.0)"),
        ({"dropout": "much"}, "dropout: Input should be a valid number"),
        ({"dropout": [0.1, 1.5]}, "dropout.1: Input should be less than 1 (received 1.5)"),
        ({"dropout": [0.1]}, "dropout has 1 values for 2 hidden layers; give one for each layer"),
        ({"normalisation": "batchnorm"}, "normalisation: Input should be 'batch_norm' or 'layer_norm'"),
        ({"activation": "rlu"}, "activation: Input should be 'relu', 'leaky_relu'"),
    ],
)
def test_wrong_options_are_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        try:
            options(**changes)
        except ValidationError as error:
            raise config_error(error) from None
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)

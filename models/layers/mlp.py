"""A multi-layer perceptron."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from embtables.models.hidden_layers import Activation, HiddenLayers
from embtables.models.layers.batch_norm import BatchNorm
from embtables.models.layers.dropout import Dropout
from embtables.shard.world import World

ACTIVATIONS: Mapping[Activation, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "leaky_relu": lambda: nn.LeakyReLU(0.01, inplace=True),
    "prelu": lambda: nn.PReLU(init=0.25),  # one slope for a layer, which is learned
    "elu": lambda: nn.ELU(inplace=True),
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


class Mlp(nn.Module):
    """Linear, normalisation, activation and dropout for each hidden size. `out_size` is the width of the result.

    Args:
        in_size: width of the input.
        hidden: the layers.
        world: the ranks that train together.
    """

    def __init__(self, in_size: int, hidden: HiddenLayers, world: World) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width, rate in zip(hidden.hidden_sizes, hidden.rates, strict=True):
            # Batch normalisation takes the mean away, and a bias with it: that would only follow rounding errors.
            linear = nn.Linear(in_size, width, bias=hidden.normalisation != "batch_norm")
            nn.init.xavier_normal_(linear.weight)
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)
            layers.append(linear)
            if hidden.normalisation is not None:
                layers.append(BatchNorm(width, world) if hidden.normalisation == "batch_norm" else nn.LayerNorm(width))
            layers.append(ACTIVATIONS[hidden.activation]())
            if rate > 0.0:
                layers.append(Dropout(rate))
            in_size = width
        self.net = nn.Sequential(*layers)
        self.out_size = in_size

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_size) -> (B, out_size)."""
        result: Tensor = self.net(x)
        return result

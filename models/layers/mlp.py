"""A multi-layer perceptron."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from embtables.models.layers.dropout import Dropout


class Mlp(nn.Module):
    """Linear, ReLU and dropout for each hidden size. `out_size` is the width of the result.

    Args:
        in_size: width of the input.
        hidden_sizes: widths of the layers, at least one.
        dropout: share of activations dropped in training, after each ReLU.
    """

    def __init__(self, in_size: int, hidden_sizes: Sequence[int], dropout: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in hidden_sizes:
            linear = nn.Linear(in_size, width)
            nn.init.xavier_normal_(linear.weight)
            nn.init.zeros_(linear.bias)
            layers += [linear, nn.ReLU(inplace=True)]
            if dropout > 0.0:
                layers.append(Dropout(dropout))
            in_size = width
        self.net = nn.Sequential(*layers)
        self.out_size = in_size

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_size) -> (B, out_size)."""
        result: Tensor = self.net(x)
        return result

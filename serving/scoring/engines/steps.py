"""The layers of DCN-V2 as a list of operations: those that the module would call, without the calls of its parts.

For a hundred rows, what torch does for each call of a module takes a third of the time of its products. The operations
and their arguments are the same, so that the result has the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embtables.models.dense_net import DenseNet
from embtables.models.layers.dropout import Dropout
from embtables.models.nets.dcnv2 import DcnV2

Step = Callable[[Tensor], Tensor]


def steps_of(net: DenseNet) -> Callable[..., Tensor]:
    """What computes the outputs of a net, faster where its layers are known; else the net itself."""
    layers = net.layers
    if type(layers) is not DcnV2 or len(net.views) != 1:
        return net
    crosses = [(layer.weight, layer.bias) for layer in layers.cross.layers if isinstance(layer, nn.Linear)]
    deep = _steps(list(layers.deep.net))
    out_cross = None if layers.out_cross is None else layers.out_cross.weight
    out_deep, bias = layers.out_deep.weight, layers.out_deep.bias

    def outputs(*inputs: Tensor) -> Tensor:
        x = torch.cat(inputs, dim=1) if len(inputs) > 1 else inputs[0]
        crossed = x
        for weight, of_layer in crosses:
            crossed = torch.addcmul(crossed, x, F.linear(crossed, weight, of_layer))
        hidden = crossed if out_cross is None else x
        for step in deep:
            hidden = step(hidden)
        logits = F.linear(hidden, out_deep, bias)
        return logits if out_cross is None else F.linear(crossed, out_cross) + logits

    return outputs


def _steps(modules: Sequence[nn.Module]) -> list[Step]:
    found: list[Step] = []
    for module in modules:
        if isinstance(module, Dropout | nn.Identity):
            continue
        if isinstance(module, nn.Linear):
            found.append(_linear(module))
        elif isinstance(module, nn.ReLU):
            found.append(torch.relu_)
        else:
            found.append(module)
    return found


def _linear(module: nn.Linear) -> Step:
    weight, bias = module.weight, module.bias
    return lambda x: F.linear(x, weight, bias)

"""The layers of DCN-V2 as a list of operations: those that the module would call, without the calls of its parts.

For a hundred rows, what torch does for each call of a module takes a third of the time of its products. Weights of few
inputs are turned once, as products of few rows read them fastest (139 x 139: 39 us in place of 70). The operations and
the order of their sums are the same, so that the result has the same bits; of many inputs, turned weights would be
summed in another order.
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
_MOST_TURNED = 512  # inputs; MKL sums 800 and more of them in parts


def steps_of(net: DenseNet) -> Callable[..., Tensor]:
    """What computes the outputs of a net, faster where its layers are known; else the net itself."""
    layers = net.layers
    if type(layers) is not DcnV2 or len(net.views) != 1:
        return net
    crosses = [_linear(layer.weight, layer.bias) for layer in layers.cross.layers if isinstance(layer, nn.Linear)]
    deep = _steps(list(layers.deep.net))
    out_cross = None if layers.out_cross is None else _linear(layers.out_cross.weight, None)
    out_deep = _linear(layers.out_deep.weight, layers.out_deep.bias)

    def outputs(*inputs: Tensor) -> Tensor:
        x = torch.cat(inputs, dim=1) if len(inputs) > 1 else inputs[0]
        crossed = x
        for cross in crosses:
            crossed = torch.addcmul(crossed, x, cross(crossed))
        hidden = crossed if out_cross is None else x
        for step in deep:
            hidden = step(hidden)
        logits = out_deep(hidden)
        return logits if out_cross is None else out_cross(crossed) + logits

    return outputs


def _steps(modules: Sequence[nn.Module]) -> list[Step]:
    found: list[Step] = []
    for module in modules:
        if isinstance(module, Dropout | nn.Identity):
            continue
        if isinstance(module, nn.Linear):
            found.append(_linear(module.weight, module.bias))
        elif isinstance(module, nn.ReLU):
            found.append(torch.relu_)
        else:
            found.append(module)
    return found


def _linear(weight: Tensor, bias: Tensor | None) -> Step:
    if weight.shape[1] > _MOST_TURNED:
        return lambda x: F.linear(x, weight, bias)
    turned = weight.detach().t().contiguous()
    if bias is None:
        return lambda x: torch.mm(x, turned)
    of_outputs = bias.detach()
    return lambda x: torch.addmm(of_outputs, x, turned)

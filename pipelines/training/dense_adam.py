"""Adam over dense parameters (Kingma and Ba 2015, algorithm 1; weight decay as an L2 term).

The kernel is torch's fused one. `torch.optim.Adam` gives the same bits, but its first call imports torch._dynamo, which
takes longer than everything else before the first step of a run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

from embtables.errors import StateError
from embtables.models.dense import need_like
from embtables.pipelines.config import DenseOptimizer

_STATE = ("step", "exp_avg", "exp_avg_sq")


class DenseAdam:
    """Adam over `parameters`; one without a gradient is left as it is.

    Attributes:
        state: for each parameter that had a gradient, `step` (a float32 scalar), `exp_avg`, `exp_avg_sq` (its shape).
    """

    def __init__(self, parameters: Iterable[nn.Parameter], config: DenseOptimizer) -> None:
        self._parameters = list(parameters)
        self._config = config
        self.state: dict[Tensor, dict[str, Tensor]] = {}

    def zero_grad(self) -> None:
        """Forgets all gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """One update from the parameters' gradients."""
        learning = [(p, p.grad) for p in self._parameters if p.grad is not None]
        for parameter, _ in learning:
            if parameter not in self.state:
                zeros = (torch.zeros_like(parameter) for _ in range(2))
                self.state[parameter] = dict(zip(_STATE, (torch.zeros(()), *zeros), strict=True))
        states = [self.state[parameter] for parameter, _ in learning]
        config = self._config
        adam(
            [parameter for parameter, _ in learning],
            [gradient for _, gradient in learning],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            amsgrad=False,
            beta1=config.beta1,
            beta2=config.beta2,
            lr=learning_rate,
            weight_decay=config.weight_decay,
            eps=config.eps,
            maximize=False,
        )

    def tensors(self) -> dict[str, Tensor]:
        """The whole state by name, `0/exp_avg`: the parameter's number and the part; live views."""
        found = {}
        for number, parameter in enumerate(self._parameters):
            found.update({f"{number}/{part}": value for part, value in self.state.get(parameter, {}).items()})
        return found

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Replaces the whole state by what `tensors` gave.

        Raises:
            StateError: a name, a shape or a dtype is not that of a parameter here, or a value cannot be Adam's.
        """
        loaded: dict[Tensor, dict[str, Tensor]] = {}
        known_names = {f"{number}/{part}": (number, part) for number in range(len(self._parameters)) for part in _STATE}
        for name, value in tensors.items():
            if name not in known_names:
                raise StateError(f"the dense optimizer has no '{name[:80]}' here")
            number, part = known_names[name]
            parameter = self._parameters[number]
            needed = torch.zeros(()) if part == "step" else parameter
            fits = need_like(f"the dense optimizer's '{name}'", value, needed)
            # Moments of a run that diverged may not be finite; its steps are, and no mean of squares is below 0.
            is_wrong = part == "exp_avg_sq" and bool((fits < 0).any())
            if is_wrong or (part == "step" and not 0 <= float(fits) < math.inf):
                raise StateError(f"the dense optimizer's '{name}' has values that Adam never has")
            loaded.setdefault(parameter, {})[part] = fits.clone()
        for index, known in enumerate(self._parameters):
            if known in loaded and (missing := set(_STATE) - set(loaded[known])):
                raise StateError(f"the dense optimizer's '{index}/{min(missing)}' is missing")
        self.state = loaded

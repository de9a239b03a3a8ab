"""Optimizers of rows: everything that depends on an optimizer's kind, one `OptimizerSpec` for each.

Its configuration is a kind of `embtables.schema.Optimizer`; what it does, which state a row has and what the row stores
call it stand here. Importing this does not import torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from embtables.errors import ConfigError
from embtables.schema import Adagrad, Adam, OptimizerConfig, RowwiseAdagrad, Sgd
from embtables.schema.tables import OPTIMIZERS

if TYPE_CHECKING:
    from torch import Tensor

WEIGHT = "weight"
_OTHER_COLUMNS = (WEIGHT, "key", "seen", "count")  # of a table's files


@dataclass(frozen=True, slots=True)
class StateColumn:
    """Optimizer state that each row has.

    Attributes:
        per_element: D float32 values for each row; False: one.
        native: its number in the native core (Column in row_columns.h); None where it has none.
        meaning: where a table goes on with another optimizer that has state of the same meaning, the state goes over:
            from elements to the row as their mean, from the row to each of its elements as it is.
    """

    per_element: bool
    native: int | None = None
    meaning: str | None = None


# (configuration, weight (U, D), state by name (U, D) or (U,), gradient (U, D), learning rate, t): changes weight and
# state in place. Rows are distinct; t counts the steps of the table's store, 1 being the first.
Step = Callable[[Any, "Tensor", Mapping[str, "Tensor"], "Tensor", float, int], None]


def _no_parameters(config: Any) -> dict[str, float]:
    return {}


@dataclass(frozen=True)
class OptimizerSpec:
    """One optimizer of rows.

    Attributes:
        config: its options; its `kind` names the optimizer in configurations.
        step: the rule in plain torch over the touched rows. Weight decay is in the gradient already.
        state: the columns of its state by name, in the order of files.
        parameters: from its options, those of eps, beta1 and beta2 that native stores and fbgemm are to use.
        native_rule: its number in the native core (Rule in rules.h); None: the host row store does not have it.
        fbgemm: the name of fbgemm's EmbOptimType; None: the fbgemm row store does not have it.
        fbgemm_of_one_value: the same for rows of one value, where fbgemm needs another.

    Example:
        class Sign(OptimizerConfig):
            kind: Literal["sign"] = "sign"


        def step(config, weight, state, gradient, learning_rate, t):
            weight.add_(gradient.sign(), alpha=-learning_rate)


        register_optimizer(OptimizerSpec(Sign, step))
    """

    config: type[OptimizerConfig]
    step: Step
    state: Mapping[str, StateColumn] = field(default_factory=dict)
    parameters: Callable[[Any], dict[str, float]] = _no_parameters
    native_rule: int | None = None
    fbgemm: str | None = None
    fbgemm_of_one_value: str | None = None

    @property
    def kind(self) -> str:
        """Its name in configurations."""
        return str(self.config.model_fields["kind"].default)

    @cached_property
    def columns(self) -> dict[str, bool]:
        """What a row consists of, the weight first; True: D values for each row, False: one."""
        return {WEIGHT: True} | {name: column.per_element for name, column in self.state.items()}

    @cached_property
    def native_columns(self) -> dict[str, int]:
        """The same, each with its number in the native core; those that it does not have are left out."""
        numbers = {name: column.native for name, column in self.state.items()}
        return {WEIGHT: 0} | {name: number for name, number in numbers.items() if number is not None}


def _sgd(config: Sgd, weight: Tensor, state: Mapping[str, Tensor], gradient: Tensor, rate: float, t: int) -> None:
    weight.add_(gradient, alpha=-rate)


def _adagrad(
    config: Adagrad, weight: Tensor, state: Mapping[str, Tensor], gradient: Tensor, rate: float, t: int
) -> None:
    total = state["sum"].addcmul_(gradient, gradient)
    weight.addcdiv_(gradient, total.sqrt().add_(config.eps), value=-rate)


def _rowwise_adagrad(
    config: RowwiseAdagrad, weight: Tensor, state: Mapping[str, Tensor], gradient: Tensor, rate: float, t: int
) -> None:
    total = state["sum"].add_(gradient.square().mean(dim=1))
    weight.addcdiv_(gradient, total.sqrt().add_(config.eps).unsqueeze(1), value=-rate)


def _adam(config: Adam, weight: Tensor, state: Mapping[str, Tensor], gradient: Tensor, rate: float, t: int) -> None:
    first = state["exp_avg"].lerp_(gradient, 1.0 - config.beta1)
    second = state["exp_avg_sq"].mul_(config.beta2).addcmul_(gradient, gradient, value=1.0 - config.beta2)
    denominator = second.sqrt().div_(math.sqrt(1.0 - config.beta2**t)).add_(config.eps)
    weight.addcdiv_(first, denominator, value=-rate / (1.0 - config.beta1**t))


_SUM_OF_SQUARES = "sum of squared gradients"

_SPECS = {
    spec.config: spec
    for spec in (
        OptimizerSpec(Sgd, _sgd, native_rule=0, fbgemm="EXACT_SGD"),
        OptimizerSpec(
            Adagrad,
            _adagrad,
            {"sum": StateColumn(per_element=True, native=1, meaning=_SUM_OF_SQUARES)},
            lambda config: {"eps": config.eps},
            native_rule=1,
            fbgemm="EXACT_ADAGRAD",
        ),
        OptimizerSpec(
            RowwiseAdagrad,
            _rowwise_adagrad,
            {"sum": StateColumn(per_element=False, native=3, meaning=_SUM_OF_SQUARES)},
            lambda config: {"eps": config.eps},
            native_rule=2,
            fbgemm="EXACT_ROWWISE_ADAGRAD",
            fbgemm_of_one_value="EXACT_ADAGRAD",
        ),
        OptimizerSpec(
            Adam,
            _adam,
            {"exp_avg": StateColumn(per_element=True, native=1), "exp_avg_sq": StateColumn(per_element=True, native=2)},
            lambda config: {"eps": config.eps, "beta1": config.beta1, "beta2": config.beta2},
            native_rule=3,
        ),
    )
}


def register_optimizer(spec: OptimizerSpec) -> OptimizerSpec:
    """Adds an optimizer from outside the package: its kind may stand in configurations from now on.

    One without a number in the native core trains with `row_store: reference`. A process that reads a version whose
    tables have it registers it too.

    Raises:
        ConfigError: another optimizer has this kind, or the name of a state column is taken.
    """
    for name in spec.state:
        if name in _OTHER_COLUMNS or not name.isidentifier():
            raise ConfigError(f"optimizer '{spec.config.__name__}' cannot have state named {name!r}")
    OPTIMIZERS.add(spec.config)
    _SPECS[spec.config] = spec
    return spec


def unregister_optimizer(kind: str) -> None:
    """Takes back an optimizer that `register_optimizer` added."""
    del _SPECS[OPTIMIZERS[kind]]
    OPTIMIZERS.remove(kind)


def optimizer_spec(optimizer: OptimizerConfig) -> OptimizerSpec:
    """What the optimizer of this configuration is.

    Raises:
        ConfigError: it was not registered.
    """
    spec = _SPECS.get(type(optimizer))
    if spec is None:
        raise ConfigError(f"optimizer {type(optimizer).__name__} is not registered; call register_optimizer")
    return spec


def specs() -> tuple[OptimizerSpec, ...]:
    """All optimizers there are."""
    return tuple(_SPECS.values())

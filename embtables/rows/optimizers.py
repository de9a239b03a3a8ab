"""Optimizers of rows: everything that depends on an optimizer's kind, one `OptimizerSpec` for each.

Its configuration is a kind of `embtables.schema.Optimizer`; what it does, which state a row has and what the row stores
call it stand here. Importing this does not import torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from embtables.errors import ConfigError
from embtables.given import need
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


PARAMETERS = ("eps", "beta1", "beta2")
_OF_EVERY_OPTIMIZER = ("learning_rate", "weight_decay")  # a schedule changes the one, the other is in the gradient


@dataclass(frozen=True, slots=True)
class StoreRule:
    """What a row store's own code for an optimizer needs of an `OptimizerSpec`: all of it, and nothing else.

    Attributes:
        parameters: the numbers that it computes with, besides those that every optimizer has.
        state: True: D values for each row, False: one. By number in the native core (Column in row_columns.h); those of
            fbgemm are numbered in fbgemm's order.
    """

    parameters: Collection[str] = ()
    state: Mapping[int, bool] = field(default_factory=dict)


# By the number in the native core.
NATIVE_RULES: Mapping[int, StoreRule] = {
    0: StoreRule(),
    1: StoreRule(("eps",), {1: True}),
    2: StoreRule(("eps",), {3: False}),
    3: StoreRule(("eps", "beta1", "beta2"), {1: True, 2: True}),
}
# By the name of fbgemm's EmbOptimType: those that it has on CPU, of which the store gives all that they take.
FBGEMM_RULES: Mapping[str, StoreRule] = {
    "EXACT_SGD": StoreRule(),
    "EXACT_ADAGRAD": StoreRule(("eps",), {0: True}),
    "EXACT_ROWWISE_ADAGRAD": StoreRule(("eps",), {0: False}),
}


@dataclass(frozen=True)
class OptimizerSpec:
    """One optimizer of rows.

    Attributes:
        config: its options; its `kind` names the optimizer in configurations.
        step: the rule in plain torch over the touched rows. Weight decay is in the gradient, or the weight, already.
        state: the columns of its state by name, in the order of files.
        parameters: from its options, those of eps, beta1 and beta2 that native stores and fbgemm are to use.
        native_rule: its number in the native core (Rule in rules.h); None: the host row store does not have it.
        fbgemm: the name of fbgemm's EmbOptimType; None: the fbgemm row store does not have it.
        fbgemm_of_one_value: the same for rows of one value, where fbgemm needs another.
        may_change: its options, besides learning rate and weight decay, that may differ in a run that continues from
            another one (`--from`), because its state then means what it meant. Another option is refused there.

    Raises:
        ConfigError: it does not have what the rules of the row stores need, or has what none of them takes.

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
    parameters: Mapping[str, Callable[[Any], float]] = field(default_factory=dict)
    native_rule: int | None = None
    fbgemm: str | None = None
    fbgemm_of_one_value: str | None = None
    may_change: Collection[str] = ()

    def __post_init__(self) -> None:
        if faults := list(_faults(self)):
            raise ConfigError(f"optimizer '{self.config.__name__}': {'; '.join(faults)}")

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

    @cached_property
    def options_that_may_change(self) -> frozenset[str]:
        """The options that may change while its state means what it meant."""
        return frozenset((*_OF_EVERY_OPTIMIZER, *self.may_change))


def _faults(spec: OptimizerSpec) -> Iterator[str]:
    """What a spec lacks of what the row stores need, in words."""
    if not isinstance(spec.parameters, Mapping):
        yield f"parameters must be a mapping from names ({', '.join(PARAMETERS)}) to functions of the options"
        return
    if unknown := [name for name in spec.may_change if name not in spec.config.model_fields]:
        yield f"may_change has {', '.join(unknown)}, which is no option"
    rules: dict[str, StoreRule] = {}
    if spec.native_rule is not None:
        if spec.native_rule in NATIVE_RULES:
            rule = rules[f"native_rule {spec.native_rule}"] = NATIVE_RULES[spec.native_rule]
            yield from _faults_of_native_state(spec, rule)
        else:
            yield f"there is no native_rule {spec.native_rule}; there are {', '.join(map(str, NATIVE_RULES))}"
    for name in (name for name in (spec.fbgemm, spec.fbgemm_of_one_value) if name is not None):
        if name in FBGEMM_RULES:
            rule = rules[f"fbgemm's {name}"] = FBGEMM_RULES[name]
            yield from _faults_of_fbgemm_state(spec, name, rule)
        else:
            yield f"fbgemm has no {name} on CPU; it has {', '.join(FBGEMM_RULES)}"
    for of, rule in rules.items():
        if lacking := [name for name in rule.parameters if name not in spec.parameters]:
            yield f"parameters lack {', '.join(lacking)}, which {of} computes with"
    taken = {name for rule in rules.values() for name in rule.parameters}
    if unused := [name for name in spec.parameters if name not in taken]:
        yield f"parameters have {', '.join(unused)}, which no rule that it names computes with"


def _faults_of_native_state(spec: OptimizerSpec, rule: StoreRule) -> Iterator[str]:
    ours = [(column.native, column.per_element) for column in spec.state.values()]
    if len(ours) != len(rule.state) or set(ours) != set(rule.state.items()):
        kept = [f"native={number}, per_element={wide}" for number, wide in rule.state.items()]
        found = [f"{n} with native={c.native}, per_element={c.per_element}" for n, c in spec.state.items()]
        yield (
            f"native_rule {spec.native_rule} keeps {'; '.join(kept) or 'no state'}, "
            f"and state has {'; '.join(found) or 'no column'}"
        )


def _faults_of_fbgemm_state(spec: OptimizerSpec, name: str, rule: StoreRule) -> Iterator[str]:
    ours, theirs = ([column.per_element for column in spec.state.values()], list(rule.state.values()))
    one_value = name == spec.fbgemm_of_one_value  # D values are one value then
    if len(ours) != len(theirs) or (ours != theirs and not one_value):
        yield f"fbgemm's {name} keeps state of per_element={theirs}, and the columns of state have {ours}"


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


def _same(*names: str) -> dict[str, Callable[[Any], float]]:
    """Parameters that are options of the same name."""
    return {name: attrgetter(name) for name in names}


_SUM_OF_SQUARES = "sum of squared gradients"

_SPECS = {
    spec.config: spec
    for spec in (
        OptimizerSpec(Sgd, _sgd, native_rule=0, fbgemm="EXACT_SGD"),
        OptimizerSpec(
            Adagrad,
            _adagrad,
            {"sum": StateColumn(per_element=True, native=1, meaning=_SUM_OF_SQUARES)},
            _same("eps"),
            native_rule=1,
            fbgemm="EXACT_ADAGRAD",
            may_change=("eps",),
        ),
        OptimizerSpec(
            RowwiseAdagrad,
            _rowwise_adagrad,
            {"sum": StateColumn(per_element=False, native=3, meaning=_SUM_OF_SQUARES)},
            _same("eps"),
            native_rule=2,
            fbgemm="EXACT_ROWWISE_ADAGRAD",
            fbgemm_of_one_value="EXACT_ADAGRAD",
            may_change=("eps",),
        ),
        OptimizerSpec(
            Adam,
            _adam,
            {"exp_avg": StateColumn(per_element=True, native=1), "exp_avg_sq": StateColumn(per_element=True, native=2)},
            _same("eps", "beta1", "beta2"),
            native_rule=3,
            may_change=("eps", "beta1", "beta2"),
        ),
    )
}


def register_optimizer(spec: OptimizerSpec) -> OptimizerSpec:
    """Adds an optimizer from outside the package: its kind may stand in configurations from now on.

    One without a number in the native core trains with `row_store: reference`. A process that reads a version whose
    tables have it registers it too.

    Raises:
        ConfigError: it is no OptimizerSpec, another optimizer has this kind, or the name of a state column is taken.
    """
    need(spec, OptimizerSpec, "spec", "an OptimizerSpec")
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


def native_parameters(optimizer: OptimizerConfig) -> dict[str, float]:
    """Every parameter as the native core takes it; one that the optimizer's rule does not compute with is 0."""
    spec = optimizer_spec(optimizer)
    taken = () if spec.native_rule is None else NATIVE_RULES[spec.native_rule].parameters
    return {name: spec.parameters[name](optimizer) if name in taken else 0.0 for name in PARAMETERS}


def dense_factor(optimizer: OptimizerConfig, rate_factor: float) -> float:
    """What every row is multiplied by in a step at `rate_factor` times the configured learning rate; 1: it stays.

    Raises:
        ConfigError: nothing of a row would stay.
    """
    lost = optimizer.learning_rate * rate_factor * optimizer.dense_decay
    if lost >= 1.0:
        raise ConfigError(
            f"weight_decay.rate {optimizer.dense_decay} takes all of a row away at {rate_factor} times the learning "
            f"rate {optimizer.learning_rate}"
        )
    return 1.0 - lost


def specs() -> tuple[OptimizerSpec, ...]:
    """All optimizers there are."""
    return tuple(_SPECS.values())

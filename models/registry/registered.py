"""The one list of models. The package's own: a file in `models/kinds/`, a network in `models/nets/`, and a line here.

Others come in by `register_model`, or by an entry point of an installed package (installed.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar, overload

from embtables.errors import ConfigError
from embtables.models.kinds.dcnv2 import DCNV2
from embtables.models.kinds.deepfm import DEEPFM
from embtables.models.kinds.fm import FM
from embtables.models.kinds.lr import LR
from embtables.models.registry.factory import ModelFactory, factory_name, spec_of_factory
from embtables.models.registry.installed import installed_model
from embtables.models.spec import MODELS, ModelOptions, ModelSpec

ModelCode: TypeAlias = "ModelSpec[Any] | ModelFactory"
M = TypeVar("M", bound=ModelCode)


@dataclass(frozen=True)
class _Known:
    """A registered model: what was registered, and the spec that was made of it."""

    code: ModelCode
    spec: ModelSpec[Any]

    @property
    def origin(self) -> str:
        """Where the code is from: module and name."""
        named: Any = self.spec.config if isinstance(self.code, ModelSpec) else self.code
        return f"{named.__module__}.{getattr(named, '__qualname__', type(named).__qualname__)}"


_KNOWN: dict[str, _Known] = {}


@overload
def register_model(model: M, *, name: str | None = None) -> M: ...


@overload
def register_model(*, name: str) -> Callable[[M], M]: ...


def register_model(model: Any = None, *, name: str | None = None) -> Any:
    """Makes a model known to configurations, training and scoring; a decorator, too.

    A function or class has parameters named after the views that it looks up (`pooled`, `sequence`, `first_order`,
    `pooled_first_order`), `num_dense`, `num_labels`, and its options; it gives a torch module, which maps ids of B rows
    and dense values (B, num_dense) to logits (B, num_labels). What is registered again, as in a notebook whose cell
    runs twice, replaces what it was.

    Args:
        model: a ModelSpec; or a function or class.
        name: the model's `kind` in configurations; by default the function's or class's own name.

    Returns:
        The model.

    Raises:
        ConfigError: another model has this kind; or it takes no view, or has options that no configuration can hold.

    Example:
        >>> import embtables
        >>> from torch import nn
        >>> @embtables.register_model
        ... class OneLayer(nn.Module):
        ...     def __init__(self, pooled, num_labels, dropout: float = 0.0):
        ...         super().__init__()
        ...         self.pooled, self.dropout = pooled, nn.Dropout(dropout)
        ...         self.out = nn.Linear(sum(pooled.embedding_dims), num_labels)
        ...     def forward(self, ids, dense):
        ...         return self.out(self.dropout(self.pooled(ids)))
        >>> changes = ["model={kind: OneLayer, dropout: 0.2}", "train.max_steps=20"]
        >>> embtables.train("my.yaml", overrides=changes, shown=False).report()["model"]
        'OneLayer'
    """
    if model is None:
        return lambda code: register_model(code, name=name)
    if isinstance(model, ModelSpec):
        known = _Known(model, model)
        if name is not None and name != model.kind:
            raise ConfigError(f"a ModelSpec is named by its configuration: '{model.kind}', not '{name}'")
    else:
        known = _Known(model, spec_of_factory(model, factory_name(model) if name is None else name))
    kind = known.spec.kind
    former = _KNOWN.get(kind)
    if former is not None:
        if former.origin != known.origin:
            raise ConfigError(f"model '{kind}' is already {former.origin}; give {known.origin} another name")
        forget_model(kind)
    MODELS.add(known.spec.config)
    _KNOWN[kind] = known
    return model


def forget_model(kind: str) -> None:
    """Takes a registered model back, if it is there."""
    MODELS.remove(kind)
    _KNOWN.pop(kind, None)


def spec_of(config: ModelOptions) -> ModelSpec[Any]:
    """The spec of a configured model. Raises ConfigError if it was taken back."""
    if config.kind not in _KNOWN:
        raise ConfigError(f"model '{config.kind}' is not registered any more")
    return _KNOWN[config.kind].spec


def code_of(kind: str) -> ModelCode | None:
    """What was registered as a kind from outside the package; None for the package's own."""
    known = _KNOWN[kind]
    return None if known.spec in _OWN else known.code


def _look_among_installed(kind: str) -> None:
    """Registers the model that an installed package offers under this name, if one does."""
    found = installed_model(kind)
    if found is None or kind in MODELS:  # its module may have registered it as it was imported
        return
    code, what = found
    if isinstance(code, ModelSpec) and code.kind != kind:
        raise ConfigError(f"{what}, which is model '{code.kind}': the entry point must have that name")
    try:
        register_model(code, name=kind)
    except ConfigError as error:
        raise ConfigError(f"{what}: {error}") from error


_OWN = (LR, FM, DEEPFM, DCNV2)
for _spec in _OWN:
    register_model(_spec)
MODELS.look_with(_look_among_installed)

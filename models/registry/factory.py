"""A function or class that makes a network from views, as a kind of model.

    def tower(pooled, num_dense: int, num_labels: int, width: int = 64) -> nn.Module

Its parameters say everything: those named after a view are looked up, `num_dense` and `num_labels` are figures of the
schema, and all others are options of the `model` section, with their types and defaults.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_type_hints

from pydantic import Field, ValidationError, create_model
from pydantic.errors import PydanticUserError
from pydantic_core import PydanticSerializationError, PydanticUndefined

from embtables.errors import ConfigError
from embtables.models.spec import ModelInputs, ModelOptions, ModelSpec, ViewName
from embtables.schema import error_lines

if TYPE_CHECKING:
    from torch import nn

ModelFactory: TypeAlias = "Callable[..., nn.Module]"

_VIEWS: dict[str, frozenset[ViewName]] = {
    "pooled": frozenset({"pooled"}),
    "sequence": frozenset({"sequence"}),
    "first_order": frozenset({"first_order"}),
    "pooled_first_order": frozenset({"pooled", "first_order"}),
}
_FIGURES = ("num_dense", "num_labels")
_NEED = {
    "pooled": ModelInputs.need_pooled,
    "sequence": ModelInputs.need_sequence,
    "first_order": ModelInputs.need_first_order,
    "pooled_first_order": ModelInputs.need_pooled_first_order,
}
_KINDS_OF_PARAMETERS = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def factory_name(factory: ModelFactory) -> str:
    """The name that a factory has in configurations if none is given: its own.

    Raises:
        ConfigError: it is no function or class, or has no name.
    """
    _need_callable(factory)
    name = str(getattr(factory, "__name__", ""))
    if not name.isidentifier():
        raise ConfigError(f"{factory!r} has no name of its own; give it one: register_model(..., name='my_model')")
    return name


def spec_of_factory(factory: ModelFactory, name: str) -> ModelSpec[Any]:
    """The kind of model that a factory makes.

    >>> from torch import nn
    >>> def tower(pooled, num_labels, width: int = 64): ...
    >>> spec = spec_of_factory(tower, "tower")
    >>> spec.takes, spec.config(width=32)
    (frozenset({'pooled'}), towerOptions(kind='tower', width=32))

    Raises:
        ConfigError: it takes no view, or a parameter cannot be filled or read from a configuration.
    """
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.\-]*", name):
        raise ConfigError(f"model '{name}': a name has letters, digits, '_', '.', '-' and begins with a letter")
    _need_callable(factory)
    parameters = _parameters(factory, name)
    views = [parameter for parameter in parameters if parameter in _VIEWS]
    if not views:
        raise ConfigError(f"model '{name}' takes no view: name a parameter of it one of {', '.join(_VIEWS)}")
    if "pooled_first_order" in views or {"pooled", "first_order"} <= set(views):
        beside = [view for view in views if view in ("pooled", "first_order")]
        if beside:
            raise ConfigError(
                f"model '{name}' takes '{beside[0]}' and first-order weights apart: its parameter "
                "'pooled_first_order' alone is one lookup for both"
            )
    options = {k: v for k, v in parameters.items() if k not in _VIEWS and k not in _FIGURES}
    config = _options_model(factory, name, options)

    def build(config: ModelOptions, inputs: ModelInputs) -> nn.Module:
        given = {key: _given(parameters[key], inputs) for key in parameters if key not in options}
        return factory(**given, **{key: getattr(config, key) for key in options})

    return ModelSpec(config, frozenset[ViewName]().union(*(_VIEWS[view] for view in views)), build)


def _need_callable(factory: object) -> None:
    if not callable(factory):
        raise ConfigError(
            f"a model is a ModelSpec, or a function or class that makes a torch module; received {factory!r}"
        )


def _given(parameter: inspect.Parameter, inputs: ModelInputs) -> Any:
    """What the schema gives for a parameter. A view that no feature goes to is None where that is its default."""
    if parameter.name in _VIEWS and parameter.default is None:
        return getattr(inputs, parameter.name)
    return _NEED[parameter.name](inputs) if parameter.name in _VIEWS else getattr(inputs, parameter.name)


def _parameters(factory: ModelFactory, name: str) -> Mapping[str, inspect.Parameter]:
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError) as error:
        raise ConfigError(f"model '{name}': its parameters cannot be read: {error}") from error
    for parameter in parameters.values():
        if parameter.kind not in _KINDS_OF_PARAMETERS:
            raise ConfigError(f"model '{name}': parameter '{parameter}' has no name that a configuration could use")
    return parameters


def _options_model(factory: ModelFactory, name: str, parameters: Mapping[str, inspect.Parameter]) -> type[ModelOptions]:
    """The `model` section of a factory, from its parameters that are options."""
    fields: dict[str, Any] = {"kind": (Literal[name], name)}
    for key, parameter in parameters.items():
        if key in dir(ModelOptions) or key in ("kind", "model_config") or key.startswith("_"):
            raise ConfigError(f"model '{name}': an option cannot be named '{key}'; rename the parameter")
        has_default = parameter.default is not inspect.Parameter.empty
        default = parameter.default if has_default else PydanticUndefined
        fields[key] = (_type(factory, name, parameter), Field(default, validate_default=True))
    try:
        made: type[ModelOptions] = create_model(
            f"{name}Options", __base__=ModelOptions, __module__=factory.__module__, **fields
        )
        made.model_json_schema()
        if all(not field.is_required() for field in made.model_fields.values()):
            made.model_validate({"kind": name}).model_dump_json()
    except ValidationError as error:
        raise ConfigError(f"model '{name}': the default of an option is wrong: {error_lines(error)[0]}") from error
    except (PydanticUserError, PydanticSerializationError, ValueError, TypeError, NameError) as error:
        reason = " ".join(str(error).split(". ")[0].split())
        raise ConfigError(f"model '{name}': its options cannot be written to a configuration: {reason}") from error
    made.__doc__ = (inspect.getdoc(factory) or f"Options of the model {name}.").split("\n\n")[0]
    return made


def _type(factory: ModelFactory, name: str, parameter: inspect.Parameter) -> Any:
    """The type of an option: as annotated, else that of its default."""
    if parameter.annotation is inspect.Parameter.empty:
        if isinstance(parameter.default, bool | int | float | str):
            return type(parameter.default)
        raise ConfigError(f"model '{name}': option '{parameter.name}' needs a type: {parameter.name}: int")
    code = inspect.unwrap(factory.__init__ if inspect.isclass(factory) else factory)
    holder = SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
    try:
        names = getattr(code, "__globals__", {})
        return get_type_hints(holder, globalns=names, include_extras=True)[parameter.name]
    except (NameError, TypeError, SyntaxError) as error:
        raise ConfigError(f"model '{name}': the type of option '{parameter.name}' cannot be read: {error}") from error

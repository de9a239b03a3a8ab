"""Open tagged unions: a section's `kind` names one of several models, and more may be added from outside.

    OPTIMIZERS: Kinds[OptimizerConfig] = Kinds("optimizer")    the table of them
    @OPTIMIZERS.add                                            one kind: a model whose `kind` has its name as default
    Optimizer = Annotated[OptimizerConfig, OPTIMIZERS]         the type of a field

What a section means to the program (how an optimizer steps, how an encoder makes keys) is registered where it is
implemented; docs/how-to-add.md walks through each.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from embtables.errors import ConfigError
from embtables.schema.base import Model

M = TypeVar("M", bound=Model)


class Kinds(Generic[M]):
    """The models of one section, by `kind`; as metadata of a field's type it validates and writes them.

    Args:
        what: the section's word, for errors.
        default: the kind if a section names none; by default `kind` must be given.
        unknown_hint: what to do about a kind that is not there, for its error.
    """

    def __init__(self, what: str, default: str | None = None, *, unknown_hint: str | None = None) -> None:
        self._what = what
        self._default = default
        self._unknown_hint = unknown_hint
        self._look_for: Callable[[str], None] | None = None
        self._models: dict[str, type[M]] = {}

    def add(self, model: type[M]) -> type[M]:
        """Adds a kind; a class decorator.

        Raises:
            ConfigError: the model's `kind` has no default, or another model has it.
        """
        kind = model.model_fields["kind"].default if "kind" in model.model_fields else None
        if not isinstance(kind, str):
            raise ConfigError(f"{model.__name__} needs a field `kind: Literal['name'] = 'name'` to be a {self._what}")
        if kind in self._models:
            raise ConfigError(f"{self._what} '{kind}' is already {self._models[kind].__name__}")
        self._models[kind] = model
        return model

    def look_with(self, look_for: Callable[[str], None]) -> None:
        """Sets what is called with a kind that is not there before it is refused: it may add the kind.

        Args:
            look_for: raises ConfigError if what it finds is no model of the section.
        """
        self._look_for = look_for

    def remove(self, kind: str) -> None:
        """Takes a kind back, if it is there."""
        self._models.pop(kind, None)

    def __iter__(self) -> Iterator[str]:
        return iter(self._models)

    def __getitem__(self, kind: str) -> type[M]:
        return self._models[kind]

    def _validated(self, value: Any) -> M:
        if isinstance(value, Model):
            if type(value) in self._models.values():
                return value  # type: ignore[return-value]
            raise PydanticCustomError("unknown_kind", f"{type(value).__name__} is not a registered {self._what}")
        kind = value.get("kind", self._default) if isinstance(value, dict) else None
        if isinstance(kind, str) and kind not in self._models and self._look_for is not None:
            try:
                self._look_for(kind)
            except ConfigError as error:
                raise PydanticCustomError("broken_code", "{reason}", {"reason": str(error)}) from error
        if not isinstance(kind, str) or kind not in self._models:
            raise self._unknown(kind)
        # A ValidationError that is raised here keeps its paths, below the field's own.
        return self._models[kind].model_validate(value)

    def _unknown(self, kind: object) -> PydanticCustomError:
        known = f"'kind' must be one of: {', '.join(self._models)}"
        if not isinstance(kind, str) or self._unknown_hint is None:
            return PydanticCustomError("unknown_kind", known)
        near = difflib.get_close_matches(kind, self._models, n=1, cutoff=0.6)
        hint = f"did you mean '{near[0]}'?" if near else self._unknown_hint
        return PydanticCustomError("missing_code", "{known}; {hint}", {"known": known, "hint": hint})

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def written(value: Any, info: core_schema.SerializationInfo) -> Any:
            return value.model_dump(mode=info.mode, exclude_defaults=info.exclude_defaults)

        writer = core_schema.plain_serializer_function_ser_schema(written, info_arg=True)
        return core_schema.no_info_plain_validator_function(self._validated, serialization=writer)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        # As definitions the models are written once in a document, however many fields refer to them.
        members = {
            kind: handler(core_schema.definitions_schema(model.__pydantic_core_schema__, []))
            for kind, model in self._models.items()
        }
        mapping = {kind: member["$ref"] for kind, member in members.items() if "$ref" in member}
        return {"oneOf": list(members.values()), "discriminator": {"propertyName": "kind", "mapping": mapping}}

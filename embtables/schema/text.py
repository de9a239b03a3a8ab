"""YAML in and out, and the JSON Schema for editors."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from embtables.errors import ConfigError
from embtables.schema.base import Model, config_error

M = TypeVar("M", bound=Model)
MAX_CONFIG_BYTES = 4 * 1024 * 1024
# What PyYAML raises besides: for 5,000 digits, a 31st of February, `!!bool x`, for what is nested too deep.
_NOT_YAML = (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses duplicate keys and reads 1e-4 as a number (YAML 1.2 does; PyYAML does not)."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(k, deep=True) for k, _ in node.value if k.tag != "tag:yaml.org,2002:merge"]
    for key, (key_node, _) in zip(keys, node.value, strict=False):
        if not isinstance(key, str):
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is not a string", key_node.start_mark)
        if keys.count(key) > 1:
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
    # Merged keys (<<: *anchor) come first, so that the mapping's own keys replace them.
    loader.flatten_mapping(node)
    return {loader.construct_object(k, deep=True): loader.construct_object(v, deep=True) for k, v in node.value}


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def parse_yaml(text: str, **path: object) -> dict[str, Any]:
    """The mapping that YAML `text` holds. Raises ConfigError, with the line, if it is not one."""
    try:
        # _Loader derives from SafeLoader: plain data only, nothing is constructed by name.
        content = yaml.load(text, Loader=_Loader)
    except RecursionError:
        raise ConfigError("is not valid YAML: it is nested too deep", **path) from None
    except _NOT_YAML as error:
        raise ConfigError(f"is not valid YAML: {' '.join(str(error).split())}", **path) from error
    if not isinstance(content, dict):
        raise ConfigError(f"must be a mapping of keys to values, received {type(content).__name__}", **path)
    return content


def parse_value(text: str) -> Any:
    """One YAML value, as given to `--set key=value`."""
    try:
        return yaml.load(text, Loader=_Loader)
    except _NOT_YAML:
        return text


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises ConfigError if it is missing, too large or not YAML."""
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ConfigError(f"is larger than {MAX_CONFIG_BYTES} bytes; is it a configuration?", file=path)
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", file=path) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"is not UTF-8 text (byte {error.start})", file=path) from error
    return parse_yaml(text, file=path)


def validate(model: type[M], content: Mapping[str, Any], **path: object) -> M:
    """`content` as a `model`. Raises ConfigError with a line for each wrong value."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise config_error(error, **path) from error


def to_yaml(model: Model) -> str:
    """The model as YAML text, defaults included, that `validate` reads back to an equal model."""
    return yaml.safe_dump(model.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def json_schema(model: type[Model]) -> str:
    """The JSON Schema (draft 2020-12) of a model, for editors."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema()}
    return json.dumps(schema, indent=2) + "\n"

"""YAML in and out, and the JSON Schema for editors."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
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
    """SafeLoader that refuses duplicate keys and types plain values as YAML 1.2 does, numbers with `_` included.

    So `NO` and `on` are text, 010 is ten, 12:30 and 2024-01-01 are text, and 1e-4 is a number. Literals, which are
    compared with values of the log, keep their text whatever it looks like: see `_is_literal`.
    """

    # Its own, so that YAML 1.1's are not in it.
    yaml_implicit_resolvers = {}  # noqa: RUF012


_NULL = re.compile(r"^(?:~|null|Null|NULL|)$")
for _tag, _pattern, _first in (
    ("bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), "tTfF"),
    ("int", re.compile(r"^(?:[-+]?[0-9][0-9_]*|0x[0-9a-fA-F]+|0o[0-7]+)$"), "-+0123456789"),
    (
        "float",
        re.compile(
            r"^(?:[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
        ),
        "-+0123456789.",
    ),
    ("null", _NULL, ["~", "n", "N", ""]),
    ("merge", re.compile(r"^<<$"), "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _pattern, list(_first))


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node).replace("_", "")
    return int(text, 0) if text[:2] in ("0x", "0o") else int(text)


def _is_literal(key: str, keys: Collection[str], kind: object) -> bool:
    """Whether a key of a mapping holds what is compared with values of the log: read by the column's type."""
    if key == "null_id":
        return True
    if key == "value":
        return "op" in keys
    return key in ("train", "validation", "test") and kind == "column"


def _literal(node: yaml.Node) -> Any:
    """The text of a scalar, None for a bare null; of a sequence, of each."""
    if isinstance(node, yaml.SequenceNode):
        return [_literal(item) for item in node.value]
    if not isinstance(node, yaml.ScalarNode):
        raise yaml.constructor.ConstructorError(None, None, "a plain value or a list is needed", node.start_mark)
    return None if node.style is None and _NULL.match(node.value) else node.value


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(k, deep=True) for k, _ in node.value if k.tag != "tag:yaml.org,2002:merge"]
    for key, (key_node, _) in zip(keys, node.value, strict=False):
        if not isinstance(key, str):
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is not a string", key_node.start_mark)
        if keys.count(key) > 1:
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
    # Merged keys (<<: *anchor) come first, so that the mapping's own keys replace them.
    loader.flatten_mapping(node)
    nodes = {loader.construct_object(k, deep=True): v for k, v in node.value}
    kind = nodes["kind"].value if "kind" in nodes else None
    return {
        key: _literal(value) if _is_literal(key, nodes, kind) else loader.construct_object(value, deep=True)
        for key, value in nodes.items()
    }


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
_Loader.add_constructor("tag:yaml.org,2002:int", _integer)


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


def parse_value(text: str, key: str = "") -> Any:
    """One YAML value, as given to `--set key=value`; a literal keeps its text."""
    *_, parent, last = ["", *key.split(".")]
    try:
        if _is_literal(last, ("op",), "column" if parent == "split" else None):
            node = yaml.compose(text, Loader=_Loader)
            return None if node is None else _literal(node)
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

"""From the arguments of the Python call to a `RunConfig`: a schema or a configuration, rows, and options by keyword.

    schema | configuration (object, dictionary, YAML file) <- overrides <- model, split, evaluate, options of `train`

A schema says nothing of rows, model and training: those are the arguments'. Without a `split` a tenth of the rows each
validates and tests, by a hash of the columns of ids, so that equal rows are in one part; rows are shuffled, unless a
table has a `ttl_seconds`. A configuration with a `data` section says both itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import pyarrow as pa

from embtables.arrow.types import is_text, plain_type
from embtables.errors import ConfigError
from embtables.given import as_names, as_path
from embtables.models.registry import ModelCode, ModelOptions
from embtables.pipelines.call.own_model import model_section
from embtables.pipelines.config import RunConfig, absolute, apply_overrides, resolve_paths
from embtables.pipelines.sources.files.source import Source, open_source
from embtables.pipelines.sources.memory import MEMORY, MemorySource, schema_of
from embtables.schema import Model, Schema, read_yaml, validate

SchemaLike: TypeAlias = "Schema | Mapping[str, Any] | Path | str"
SplitLike: TypeAlias = "Model | Mapping[str, Any] | Literal['hash'] | None"
ModelLike: TypeAlias = "ModelOptions | ModelCode | Mapping[str, Any] | str"

DEFAULT_MODEL = "dcnv2"


def run_config(
    schema: SchemaLike,
    data: Path | str | None,
    source: MemorySource | None,
    *,
    model: ModelLike | None,
    split: SplitLike,
    evaluate: Model | Mapping[str, Any] | None,
    overrides: Sequence[str],
    options: Mapping[str, Any],
) -> RunConfig:
    """The configuration that the arguments of `train` mean.

    Args:
        data: the path of the log, if it is one.
        source: the rows in memory, if they are.
        options: of the section `train`.

    Raises:
        ConfigError: a value is wrong, or arguments do not go together.
        DataError: the log is not there.
    """
    content, file = _content(schema, overrides)
    if not content.get("name"):
        content["name"] = "run"
    if data is not None or source is not None:
        content["data"] = _data(content, data, source, split)
    elif content.get("data") is None:
        raise ConfigError(
            "'data' is missing: give a DataFrame, an Arrow table, or the path of a parquet log", file=file
        )
    elif not _by_hash(split):
        content["data"] = {**content["data"], "split": _plain(split)}
    if model is not None:
        content["model"] = model_section(model)
    content.setdefault("model", {"kind": DEFAULT_MODEL})
    for section, given in (("train", options), ("evaluate", _plain(evaluate))):
        if given:
            content[section] = {**(content.get(section) or {}), **given}
    return validate(RunConfig, content, file=file)


def _content(schema: SchemaLike, overrides: Sequence[str]) -> tuple[dict[str, Any], Path | None]:
    """The configuration or schema as a dictionary, and its file."""
    if isinstance(schema, str | Path):
        path = as_path(schema, "schema")
        content = read_yaml(path)
        resolve_paths(content, path.resolve().parent)
        apply_overrides(content, overrides)
        return content, path
    if as_names(overrides, "overrides"):
        raise ConfigError("'overrides' go with the path of a file; an object holds its values already")
    if isinstance(schema, Schema):
        return schema.model_dump(mode="json"), None
    if not isinstance(schema, Mapping):
        raise ConfigError(
            f"the schema is {type(schema).__name__}; give a Schema, a dictionary, or the path of a YAML file"
        )
    content = {**schema}
    resolve_paths(content, Path.cwd())
    return content, None


def _plain(value: Model | Mapping[str, Any] | str | None) -> dict[str, Any] | None:
    if isinstance(value, Model):
        return value.model_dump(mode="json")
    if isinstance(value, str):
        raise ConfigError(f"received '{value}'; give a dictionary with 'kind', or its class")
    if value is None or isinstance(value, Mapping):
        return None if value is None else {**value}
    raise ConfigError(f"received {value!r}; give a dictionary of a section's values")


def _data(
    content: Mapping[str, Any], path: Path | str | None, source: MemorySource | None, split: SplitLike
) -> dict[str, Any]:
    """The data section: the one that is given, with these rows in the place of its own."""
    given = {name: value for name, value in (content.get("data") or {}).items() if name not in ("path", "parts")}
    if not content.get("data") and not _needs_order(content):
        given["shuffle"] = {"seed": 0}
    if source is not None and source.parts:
        if not _by_hash(split) or given.get("split") is not None:
            raise ConfigError("'split' does not go with parts that are given apart")
        return {**given, "parts": dict.fromkeys(source.parts, MEMORY)}
    data = {**given, "path": MEMORY if source is not None else absolute(str(path), Path.cwd())}
    if not _by_hash(split):
        data["split"] = _plain(split)
    elif not content.get("data"):
        opened: Source = source or open_source(data["path"], "**/*.parquet", quarantine=False)
        data["split"] = {"kind": "hash", "columns": _id_columns(content, schema_of(opened))}
    return data


def _by_hash(split: SplitLike) -> bool:
    return isinstance(split, str) and split == "hash"


def _needs_order(content: Mapping[str, Any]) -> bool:
    """Whether a table forgets rows by event time: then rows come in order of time, as they lie."""
    return any(isinstance(table, Mapping) and table.get("ttl_seconds") for table in content.get("tables") or ())


def _id_columns(content: Mapping[str, Any], types: Mapping[str, pa.DataType]) -> list[str]:
    """Columns of features that a hash can divide rows by."""
    features = (each for each in content.get("features") or () if isinstance(each, Mapping))
    named = dict.fromkeys(str(each.get("column") or each.get("name")) for each in features if not each.get("cross"))
    found = [name for name in named if name in types and _can_split(types[name])]
    if not found:
        raise ConfigError("no column of a feature can divide the rows; give split={'kind': ...}, or split=None")
    return found


def _can_split(stored: pa.DataType) -> bool:
    kind = plain_type(stored)
    checks = (pa.types.is_integer, pa.types.is_boolean, pa.types.is_timestamp)
    return is_text(kind) or any(check(kind) for check in checks)

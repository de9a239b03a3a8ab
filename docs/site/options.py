"""docs/options.md: every option of a run's configuration and of a server, from the JSON Schemas of their models."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from embtables.pipelines.config import RunConfig
from embtables.serving.settings import PREFIX, Settings

HEAD = """# Options

Every option of a configuration file, in the order of the file. `make docs` writes this page from the models that
validate the file; [schema.md](schema.md) and [training.md](training.md) explain the options in their context.

In a path, `[]` stands for each item of a list. Where a section has a `kind`, the column "kind" names the kinds that
have the option; an empty cell means all of them. A default of `none` means that the option is off or absent.
"""
SERVER = f"""
# Settings of a server

`embtables serve` takes them as `--set NAME=VALUE` (some have flags of their own) and from the environment as
`{PREFIX}<NAME>` in capitals; [serving.md](serving.md) explains them.

| setting | type | default | meaning |
|---|---|---|---|
"""
# Written as one text in YAML, whatever it is parsed to.
_TEXTS = {"Condition": "condition"}
_BOUNDS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}

Schema = dict[str, Any]


@dataclass(frozen=True)
class Option:
    """One row of the table, of one kind where its section has kinds: how many it has."""

    path: str
    type: str
    default: str
    description: str
    kind: str | None = None
    kinds: int = 0


def page() -> str:
    """The whole page."""
    schema = RunConfig.model_json_schema()
    lines = [HEAD]
    section = None
    for option, kinds in _merged(list(_of_object(schema, "", schema["$defs"]))):
        top = option.path.split(".")[0].removesuffix("[]")
        if top != section:
            section = top
            lines.append(f"\n## `{top}`\n\n| option | kind | type | default | meaning |\n|---|---|---|---|---|")
        cells = (f"`{option.path}`", kinds, option.type, option.default, option.description)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n" + SERVER + _of_server()


def _of_server() -> str:
    """The rows of a server's settings."""
    schema = Settings.model_json_schema()
    found = ""
    for option in _of_object(schema, "", schema.get("$defs", {})):
        cells = (f"`{option.path}`", option.type, option.default, option.description)
        found += "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"
    return found


def _merged(options: list[Option]) -> list[tuple[Option, str]]:
    """Options that are alike in several kinds become one row; beside each the kinds that have it."""
    alike: dict[Option, list[Option]] = {}
    for option in options:
        alike.setdefault(replace(option, kind=None), []).append(option)
    rows = []
    for option, found in alike.items():
        names = dict.fromkeys(each.kind for each in found if each.kind is not None)
        rows.append((option, "" if len(names) == option.kinds else ", ".join(f"`{name}`" for name in names)))
    return rows


def _of_object(schema: Schema, prefix: str, known: Schema, kind: str | None = None, kinds: int = 0) -> Iterator[Option]:
    required = schema.get("required", ())
    for name, field in schema["properties"].items():
        if name == "kind" and kind is not None:
            continue
        path = f"{prefix}{name}"
        inner, optional = _without_null(_resolved(field, known), known)
        default = _default(field, optional, name in required)
        item = _resolved(inner.get("items", {}), known)
        texts = (field.get("description"), inner.get("description"), item.get("description"))
        text = _first_paragraph(next(filter(None, texts), ""))
        if not text and _members(inner if inner.get("type") != "array" else item, known) is not None:
            text = f"see `{path}{'[]' if inner.get('type') == 'array' else ''}.kind`"
        yield Option(path, _type(inner, known), default, text, kind, kinds)
        yield from _below(inner, path, known)


def _below(schema: Schema, path: str, known: Schema) -> Iterator[Option]:
    """The options within a section, a list of sections, or a section of several kinds."""
    if schema.get("type") == "array":
        yield from _below(_resolved(schema["items"], known), f"{path}[]", known)
    elif (members := _members(schema, known)) is not None:
        shown = "; ".join(f"`{n}`: {_first_paragraph(m.get('description', '')).rstrip('.')}" for n, m in members)
        yield Option(f"{path}.kind", "one of " + ", ".join(f"`{name}`" for name, _ in members), "", shown)
        for name, member in members:
            yield from _of_object(member, f"{path}.", known, name, len(members))
    elif "oneOf" in schema:  # a value, or a section
        for each in schema["oneOf"]:
            yield from _below(_resolved(each, known), path, known)
    elif "properties" in schema and schema.get("title") not in _TEXTS:
        yield from _of_object(schema, f"{path}.", known)


def _members(schema: Schema, known: Schema) -> list[tuple[str, Schema]] | None:
    """The kinds of a section and what each has; None where it has none, or where it may be a plain value too."""
    if "oneOf" not in schema:
        return None
    members = [_resolved(member, known) for member in schema["oneOf"]]
    if not all("properties" in member for member in members):
        return None
    return [(member["properties"]["kind"]["const"], member) for member in members]


def _resolved(schema: Schema, known: Schema) -> Schema:
    """What a reference stands for, under the description and default beside it."""
    if "$ref" not in schema:
        return schema
    beside = {key: value for key, value in schema.items() if key != "$ref"}
    return {**known[schema["$ref"].rpartition("/")[2]], **beside}


def _without_null(schema: Schema, known: Schema) -> tuple[Schema, bool]:
    """What a value may be besides null, and whether it may be null."""
    if "anyOf" not in schema:
        return schema, False
    others = [_resolved(each, known) for each in schema["anyOf"] if each.get("type") != "null"]
    optional = len(others) < len(schema["anyOf"])
    return (others[0] if len(others) == 1 else {**schema, "anyOf": others}), optional


def _type(schema: Schema, known: Schema) -> str:
    if schema.get("title") in _TEXTS:
        return _TEXTS[schema["title"]]
    if "enum" in schema:
        return "one of " + ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    alternatives = schema.get("anyOf") or (schema.get("oneOf") if _members(schema, known) is None else None)
    if alternatives:
        return " or ".join(dict.fromkeys(_type(_resolved(each, known), known) for each in alternatives))
    if schema.get("type") == "array":
        least = schema.get("minItems")
        inner = _resolved(schema["items"], known)
        return f"list of {_type(inner, known)}" + (f", at least {least}" if least else "")
    if "oneOf" in schema or "properties" in schema:
        return "section"
    if schema.get("format") == "date-time":
        return "time"
    words = {"string": "text", "boolean": "`true` or `false`"}
    name = words.get(schema["type"], schema["type"])
    bounds = [f"{sign} {_number(schema[key])}" for key, sign in _BOUNDS.items() if key in schema]
    return f"{name} {' and '.join(bounds)}".strip()


def _number(value: float) -> str:
    """2^63 rather than its nineteen digits."""
    for offset in (0, -1):
        power = int(value - offset).bit_length() - 1
        if power >= 20 and value - offset == 2**power:
            return f"2^{power}" + (" - 1" if offset else "")
    return f"{value:g}" if isinstance(value, float) else str(value)


def _default(field: Schema, optional: bool, required: bool) -> str:
    if required:
        return "required"
    value = field.get("default")
    if isinstance(value, dict):
        return f"`{value['kind']}`" if "kind" in value else ""
    if value is None:
        return "none" if optional else ""
    if isinstance(value, list):
        return "`[" + ", ".join(map(str, value)) + "]`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`" if value != "" else "empty"


def _first_paragraph(text: str) -> str:
    return " ".join(text.split("\n\n", maxsplit=1)[0].split())

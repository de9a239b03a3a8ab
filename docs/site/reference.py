"""docs/reference.md: the public names of embtables, from their signatures and docstrings."""

from __future__ import annotations

import enum
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from pydantic import BaseModel

import embtables

HEAD = """# API reference

Every public name. `make docs` writes this page from the docstrings; the examples run as tests, in a folder that has the
log and the configuration of the [quick start](quick-start.md). Shape letters: B rows of a batch, N ids, D values of a
row, n of anything else. What is not on this page may change without notice.

A name is imported at its first use: `import embtables` alone imports neither torch nor numpy.
"""
# Section of the page -> modules whose public names it lists, as the beginnings of their paths.
SECTIONS = {
    "Runs": ("embtables.pipelines",),
    "Models": ("embtables.models", "embtables.scorer"),
    "Tables and views": ("embtables.tables", "embtables.lookup", "embtables.rows"),
    "Features": ("embtables.inputs", "embtables.ids"),
    "Configuration": ("embtables.schema",),
    "State": ("embtables.state",),
    "Serving": ("embtables.serving",),
    "Errors": ("embtables.errors",),
}
# Public modules besides `embtables` itself, with names of their own.
MODULES = ("embtables.warm_start",)
_FIELD = re.compile(r"^(\*{0,2}[A-Za-z_][\w, *.]*|`[^`]+`): (.*)$")


def page() -> str:
    """The whole page."""
    lines = [HEAD]
    for section, prefixes in SECTIONS.items():
        names = [name for name, home in embtables._HOMES.items() if home.startswith(prefixes)]
        if names:
            lines.append(f"## {section}\n")
            lines += [line for name in sorted(names) for line in _entry(embtables, name)]
    for path in MODULES:
        module = importlib.import_module(path)
        lines += [f"## {path}\n", *_text(inspect.getdoc(module) or "")]
        lines += [line for name in sorted(module.__all__) for line in _entry(module, name)]
    return "\n".join(lines).rstrip() + "\n"


def unlisted() -> list[str]:
    """Public names that no section lists."""
    listed = tuple(prefix for prefixes in SECTIONS.values() for prefix in prefixes)
    return [name for name, home in embtables._HOMES.items() if not home.startswith(listed)]


def _entry(module: ModuleType, name: str) -> Iterator[str]:
    found = getattr(module, name)
    yield f"### {module.__name__}.{name}\n"
    if inspect.isclass(found):
        yield from _class(found)
    elif callable(found):
        yield _signature(name, found)
        yield from _text(inspect.getdoc(found) or "")
    else:
        yield from _text(f"`{found!r}`")


def _class(found: type) -> Iterator[str]:
    bases = [base.__name__ for base in found.__bases__ if base.__module__.startswith("embtables")]
    if issubclass(found, Exception):
        yield f"An error; `{bases[0]}`.\n" if bases else "An error.\n"
    elif issubclass(found, BaseModel):
        fields = [_field(name, field) for name, field in found.model_fields.items() if name != "kind"]
        yield f"```python\n{_call(found.__name__, ['*', *fields] if fields else [], '')}\n```\n"
    elif not issubclass(found, enum.Enum) and not getattr(found, "_is_protocol", False):
        yield _signature(found.__name__, found)
    yield from _text(inspect.cleandoc(found.__doc__ or ""))
    if issubclass(found, BaseModel):
        yield "Its options are those of the configuration file: [options.md](options.md).\n"
    for name, member in vars(found).items():
        if name.startswith("_") or (issubclass(found, BaseModel) and name.startswith("model_")):
            continue
        function = member.__func__ if isinstance(member, classmethod | staticmethod) else member
        if inspect.isfunction(function) and function.__doc__:
            yield f"#### {found.__name__}.{name}\n"
            yield _signature(name, function)
            yield from _text(inspect.getdoc(function) or "")
        elif isinstance(member, property) and member.__doc__:
            yield f"#### {found.__name__}.{name}\n"
            yield from _text(inspect.getdoc(member) or "")


def _field(name: str, field: Any) -> str:
    if field.is_required():
        return name
    default = field.get_default(call_default_factory=True)
    return f"{name}={type(default).__name__}()" if isinstance(default, BaseModel) else f"{name}={default!r}"


def _signature(name: str, function: Any) -> str:
    """A block of code with the call, a parameter per line where it is long."""
    parameters = [p for p in inspect.signature(function).parameters.values() if p.name not in ("self", "cls")]
    shown, star = [], False
    for parameter in parameters:
        if parameter.kind is parameter.KEYWORD_ONLY and not star:
            shown.append("*")
        star = star or parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_POSITIONAL)
        shown.append(_parameter(parameter))
    returns = inspect.signature(function).return_annotation
    arrow = "" if returns is inspect.Signature.empty or inspect.isclass(function) else f" -> {_annotation(returns)}"
    return f"```python\n{_call(name, shown, arrow)}\n```\n"


def _call(name: str, parameters: list[str], arrow: str) -> str:
    line = f"{name}({', '.join(parameters)}){arrow}"
    return line if len(line) <= 100 else f"{name}(\n" + "".join(f"    {each},\n" for each in parameters) + f"){arrow}"


def _parameter(parameter: inspect.Parameter) -> str:
    text = str(parameter.replace(annotation=parameter.empty, default=parameter.empty))
    if parameter.annotation is not parameter.empty:
        text += f": {_annotation(parameter.annotation)}"
    if parameter.default is parameter.empty:
        return text
    default = getattr(parameter.default, "__name__", None) or repr(parameter.default)
    return f"{text} = {default}" if ":" in text else f"{text}={default}"


def _annotation(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _text(docstring: str) -> Iterator[str]:
    """A docstring as Markdown: its sections (Args, Raises, Example ...) as lists and blocks."""
    section = None
    block: list[str] = []
    for line in [*docstring.splitlines(), "End:"]:
        title = re.fullmatch(r"(Args|Attributes|Returns|Raises|Yields|Example|Examples|End):", line)
        if title is None:
            block.append(line)
            continue
        yield from _block(section, textwrap.dedent("\n".join(block)).strip())
        section, block = title[1], []


def _block(section: str | None, text: str) -> Iterator[str]:
    if not text.strip():
        return
    if section is None:
        yield re.sub(r"(?m)^ {4}.*(?:\n+ {4}.*)*", lambda found: f"```\n{textwrap.dedent(found[0])}\n```", text) + "\n"
    elif section.startswith("Example"):
        yield f"```python\n{text}\n```\n"
    elif section in ("Returns", "Yields"):
        yield _wrapped(f"**{section}** {' '.join(text.split())}", indent="") + "\n"
    else:
        yield f"**{ {'Args': 'Arguments'}.get(section, section) }**\n"
        yield "\n".join(map(_wrapped, _items(text))) + "\n"


def _items(text: str) -> Iterator[str]:
    """`name: what it is`, continued by indented lines, as a list."""
    item = ""
    for line in text.splitlines():
        match = _FIELD.match(line)
        if match is None:
            item += " " + line.strip()
            continue
        if item:
            yield item
        item = f"- `{match[1].strip('`')}`: {match[2]}"
    yield item


def _wrapped(text: str, indent: str = "  ") -> str:
    return textwrap.fill(text, 118, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)

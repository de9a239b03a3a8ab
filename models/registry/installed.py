"""Models of other installed packages: entry points in the group `embtables.models`, each imported when it is named."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from embtables.errors import ConfigError
from embtables.models.spec import ENTRY_POINTS


def installed_model(kind: str) -> tuple[Any, str] | None:
    """What a package's entry point of that name refers to, and the words for its package; None if there is none.

    Raises:
        ConfigError: it cannot be imported, or several packages have one of that name.
    """
    found = list(entry_points(group=ENTRY_POINTS, name=kind))
    if not found:
        return None
    packages = sorted({_package(point) for point in found})
    if len(packages) > 1:
        raise ConfigError(f"model '{kind}' is offered by several packages: {', '.join(packages)}; keep one")
    what = f"package {packages[0]} offers model '{kind}' as {found[0].value}"
    try:
        return found[0].load(), what
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{what}, which cannot be imported: {type(error).__name__}: {error}") from error


def _package(point: EntryPoint) -> str:
    return "?" if point.dist is None else f"{point.dist.name} {point.dist.version}"

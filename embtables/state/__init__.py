"""State that survives: what tables hold, as versions in a folder. Reads and writes without torch.

    folder = state.open_folder("runs/one")
    version = state.find_version(folder, "best")
    for batch in state.read_rows(version, "user", ["key", "weight"]):
        ...

Public names load on first use: a schema or a manifest is read without what reads rows.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from embtables.state.read.rows import read_rows as read_rows
    from embtables.state.read.saved_version import SavedVersion as SavedVersion
    from embtables.state.read.saved_version import find_version as find_version
    from embtables.state.read.saved_version import list_versions as list_versions
    from embtables.state.read.saved_version import open_folder as open_folder

_HOMES = {
    "SavedVersion": "embtables.state.read.saved_version",
    "find_version": "embtables.state.read.saved_version",
    "list_versions": "embtables.state.read.saved_version",
    "open_folder": "embtables.state.read.saved_version",
    "read_rows": "embtables.state.read.rows",
}

__all__ = ["SavedVersion", "find_version", "list_versions", "open_folder", "read_rows"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'embtables.state' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""What `embtables inspect` reports: a version, and figures of its tables."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from embtables.models.version_content import step_of
from embtables.state.read.saved_version import find_version, open_folder
from embtables.state.tools.figures import TableFigures, figures_of


@dataclass(frozen=True, slots=True)
class Inspection:
    """A version and its tables.

    Attributes:
        folder: the run, or the state folder, as the user named it.
        step: training's step; None if the version's writer recorded none.
        chain: names of the versions it depends on, its snapshot first, itself last.
        bytes: size of all files of the chain, dense weights included.
    """

    folder: str
    version: str
    kind: Literal["snapshot", "delta"]
    written: str
    step: int | None
    chain: tuple[str, ...]
    bytes: int
    tables: tuple[TableFigures, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain dicts, lists and numbers."""
        return dataclasses.asdict(self)


def inspect(folder: Path, version: str | None, tables: Sequence[str], top: int) -> Inspection:
    """Figures of the named tables (by default of all) in a version (by default the newest).

    Args:
        top: how many rows to list of each table, those with the highest counts.

    Raises:
        ConfigError: the folder holds no versions, or `version` is not the name of a version.
        StateError: there is no such version or table, or a file is missing or damaged.
    """
    state = open_folder(folder)
    found = find_version(state, version)
    wanted, chain = found.manifest, found.chain
    return Inspection(
        folder=str(folder),
        version=wanted.name,
        kind="snapshot" if wanted.parent is None else "delta",
        written=wanted.written,
        step=step_of(wanted),
        chain=tuple(manifest.name for manifest in chain),
        bytes=sum(file.bytes for manifest in chain for file in manifest.files.values()),
        tables=tuple(figures_of(state, chain, tables, top)),
    )

"""`Version`: what a version holds, in memory."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

from embtables.ids import Artifacts
from embtables.rows.content import TableContent
from embtables.state.format.manifest import Manifest

_ARTIFACT = re.compile(r"artifact\.(.+)\.([^.]+)\.bin")
Tensors = dict[str, npt.NDArray[Any]]
TABLES_FILE, DENSE_FILE = "tables.safetensors", "dense.safetensors"


@dataclass
class Version:
    """A version in memory.

    Attributes:
        tables: by name; of a delta what changed.
        tensors: everything dense, by name; none of a delta whose dense tensors are those of the version before.
        content: what else its writer needs again; JSON. `schema` is part of it.
        artifacts: by feature the data of its encoder; a snapshot's, on which its deltas depend.
    """

    tables: dict[str, TableContent]
    tensors: Tensors = field(default_factory=dict)
    content: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, Artifacts] = field(default_factory=dict)


def dense_version(chain: Sequence[Manifest]) -> Manifest:
    """The version of a chain whose dense tensors are those of its last one: the newest that has any."""
    return next((version for version in reversed(chain) if DENSE_FILE in version.files), chain[0])


def artifact_file(feature: str, name: str) -> str:
    """The name of an artifact's file: `artifact.item.codes.bin`."""
    return f"artifact.{feature}.{name}.bin"


def parsed_artifact(file: str) -> tuple[str, str] | None:
    """The feature and the name of an artifact whose file it is; None of another file."""
    found = _ARTIFACT.fullmatch(file)
    return None if found is None else (found[1], found[2])

"""`Version`: what a version holds, in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

from embtables.rows.content import TableContent

Tensors = dict[str, npt.NDArray[Any]]
TABLES_FILE, DENSE_FILE = "tables.safetensors", "dense.safetensors"


@dataclass
class Version:
    """A version in memory.

    Attributes:
        tables: by name; of a delta what changed.
        tensors: everything dense, by name.
        content: what else its writer wanted to know again; JSON. `schema` is part of it.
    """

    tables: dict[str, TableContent]
    tensors: Tensors = field(default_factory=dict)
    content: dict[str, Any] = field(default_factory=dict)

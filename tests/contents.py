"""What tables hold, as one dict of arrays that tests compare."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt

from embtables import Tables
from embtables.rows.content import TableContent

Arrays = dict[str, npt.NDArray[Any]]


def flat_content(content: TableContent) -> Arrays:
    """A table's content, a name for each array and number."""
    found: Arrays = {}
    for field in fields(content):
        if field.name in (
            "begins",
            "streamed",
            "figures",
        ):  # follows from the keys; nothing; no part of what is learned
            continue
        value = getattr(content, field.name)
        if isinstance(value, dict):
            found |= {f"{field.name}/{name}": values for name, values in value.items()}
        else:
            found[field.name] = np.asarray(value)
    return found


def flat(tables: Tables) -> Arrays:
    """Everything that the tables hold."""
    return {f"{t}/{name}": v for t, content in tables.content().items() for name, v in flat_content(content).items()}


def same(first: Arrays, second: Arrays) -> bool:
    """Whether both hold the same, bit for bit."""
    return first.keys() == second.keys() and all(
        first[n].dtype == second[n].dtype and np.array_equal(first[n], second[n]) for n in first
    )

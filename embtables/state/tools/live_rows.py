"""What figures need to know of every row that a version has, in 24 bytes per row however wide it is (about 80 while
they are gathered): key, last sight, count and L2 norm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embtables.keyspace import Keys
from embtables.rows.content import Words
from embtables.rows.row_format import RowFormat, Values
from embtables.state.folder.version_folder import StateFolder
from embtables.state.format.manifest import Manifest
from embtables.state.format.table_files import WAITING_SCHEMA
from embtables.state.read.merge import MergedTable
from embtables.state.read.table_file import TableFile

_NORM_VALUES = 1 << 20  # values whose squares are in memory at once


@dataclass(frozen=True, slots=True)
class LiveRows:
    """The rows of a table as a version has them. Shape letters: n rows, D dim.

    Attributes:
        keys: (n,) ascending.
        seen: (n,) the clock at each row's last sight.
        counts: (n,) gradients that each row has had; None of a version that holds weights alone.
        norms: (n,) float64, L2 norms of their weights.
        format: how their columns lie.
        row_columns: weights and optimizer state; True: D values per row, False: one.
        row_bytes: of a row's values of each of them in files.
        lost: keys that lost their row, by version of the chain: their tombstones.
    """

    keys: Keys
    seen: Words
    counts: Words | None
    norms: npt.NDArray[np.float64]
    format: RowFormat
    row_columns: dict[str, bool]
    row_bytes: dict[str, int]
    lost: tuple[int, ...]


def live_rows(state: StateFolder, chain: Sequence[Manifest], table: str) -> LiveRows:
    """The rows of a table as the last version of a chain has them.

    Raises:
        StateError: the versions have no such table, they have it with other columns, or a file is missing or damaged.
    """
    with MergedTable(state, chain, table) as merged:
        step = merged.rows_at_a_time("weight")
        starts = range(0, merged.rows, step)
        norms = [_norms(merged.read("weight", start, min(start + step, merged.rows))) for start in starts]
        keys = merged.read("key", 0, merged.rows)
        order = np.argsort(keys)
        return LiveRows(
            keys[order],
            merged.read("seen", 0, merged.rows)[order],
            merged.read("count", 0, merged.rows)[order] if "count" in merged.columns else None,
            np.concatenate([np.empty(0), *norms])[order],
            merged.format,
            merged.row_columns,
            {name: merged.row_bytes(name) for name in merged.row_columns},
            tuple(_lost(version, table) for version in chain),
        )


def _lost(version: Manifest, table: str) -> int:
    return version.rows_of(table, "tombstones")


def waiting_counts(state: StateFolder, version: Manifest, table: str) -> Words:
    """How often each waiting key of a table was seen, (m,) in any order.

    Raises:
        StateError: the file is missing or damaged.
    """
    files = (TableFile(state, version, name, WAITING_SCHEMA) for name in version.files_of(table, "waiting"))
    return np.concatenate([np.empty(0, np.uint32), *(file.read("count", 0, file.rows) for file in files)])


def _norms(weight: Values) -> npt.NDArray[np.float64]:
    """L2 norms of rows (n, D), a bounded number of them at a time."""
    norms, step = np.empty(len(weight)), max(1, _NORM_VALUES // weight.shape[1])
    for start in range(0, len(weight), step):
        values = weight[start : start + step].astype(np.float64)
        norms[start : start + step] = np.sqrt(np.einsum("nd,nd->n", values, values))
    return norms

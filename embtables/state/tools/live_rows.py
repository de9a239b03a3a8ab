"""What figures need to know of every row that a version has, in 24 bytes a row however wide it is (about 80 while they
are gathered).

Files are verified, then read by range; of their rows only key, last sight, count and L2 norm are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embtables.keyspace import Keys
from embtables.rows.content import Words
from embtables.state.folder.version_folder import StateFolder
from embtables.state.format.manifest import Manifest
from embtables.state.format.table_files import WAITING_SCHEMA, read_batch
from embtables.state.read.merge import MergedTable, verify_table
from embtables.state.read.table_read import read_file

_NORM_VALUES = 1 << 20  # values whose squares are in memory at once


@dataclass(frozen=True, slots=True)
class LiveRows:
    """The rows of a table as a version has them. Shape letters: n rows, D dim.

    Attributes:
        keys: (n,) ascending.
        seen: (n,) the clock at each row's last sight.
        counts: (n,) gradients that each row has had; None of a version that holds weights alone.
        norms: (n,) float64, L2 norms of their weights.
        dim: D.
        parts: weights and optimizer state; True: D float32 a row, False: one.
        lost: keys that lost their row, by version of the chain: their tombstones.
    """

    keys: Keys
    seen: Words
    counts: Words | None
    norms: npt.NDArray[np.float64]
    dim: int
    parts: dict[str, bool]
    lost: tuple[int, ...]


def live_rows(state: StateFolder, chain: Sequence[Manifest], table: str) -> LiveRows:
    """The rows of a table as the last version of a chain has them.

    Raises:
        StateError: the versions have no such table, they have it with other columns, or a file is missing or damaged.
    """
    verify_table(state, chain, table)
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
            merged.dim,
            merged.parts,
            tuple(_lost(version, table) for version in chain),
        )


def _lost(version: Manifest, table: str) -> int:
    return version.rows_of(table, "tombstones")


def waiting_of(state: StateFolder, version: Manifest, table: str) -> pa.Table | None:
    """The waiting keys of a table, with their counts and last sights; None where the version has none.

    Raises:
        StateError: the file is missing or damaged.
    """
    batches = []
    for name in version.files_of(table, "waiting"):
        raw, path = read_file(state, version, name), state.folder.path(state.file(version, name))
        batch = read_batch(raw, WAITING_SCHEMA, version.files[name].rows or 0, path)
        batches.append(batch.replace_schema_metadata(None))
    return pa.Table.from_batches(batches) if batches else None


def _norms(weight: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """L2 norms of rows (n, D), a bounded number of them at a time."""
    norms, step = np.empty(len(weight)), max(1, _NORM_VALUES // weight.shape[1])
    for start in range(0, len(weight), step):
        values = weight[start : start + step].astype(np.float64)
        norms[start : start + step] = np.sqrt(np.einsum("nd,nd->n", values, values))
    return norms

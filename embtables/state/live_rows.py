"""What figures need to know of every row that a version has, in 24 bytes a row however wide it is.

One file at a time is in memory, verified; of its rows only key, last sight, count and L2 norm are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embtables.errors import StateError
from embtables.state.content import Keys, Words
from embtables.state.fold import batch_of, check_table
from embtables.state.manifest import Manifest
from embtables.state.store import StateFolder

_NORM_VALUES = 1 << 20  # values whose squares are in memory at once


@dataclass(frozen=True, slots=True)
class LiveRows:
    """The rows of a table as a version has them. Shape letters: n rows, D dim.

    Attributes:
        keys: (n,) ascending.
        seen: (n,) the clock at each row's last sight.
        counts: (n,) gradients that each row has had.
        norms: (n,) float64, L2 norms of their weights.
        dim: D.
        parts: weights and optimizer state; True: D float32 a row, False: one.
        lost: keys that lost their row, by version of the chain: their tombstones.
    """

    keys: Keys
    seen: Words
    counts: Words
    norms: npt.NDArray[np.float64]
    dim: int
    parts: dict[str, bool]
    lost: tuple[int, ...]


def live_rows(state: StateFolder, chain: Sequence[Manifest], table: str) -> LiveRows:
    """The rows of a table as the last version of a chain has them.

    Raises:
        StateError: the versions have no such table, they have it with other columns, or a file is missing or damaged.
    """
    for manifest in reversed(chain):
        check_table(manifest, table)
    pieces: list[LiveRows] = []
    for manifest in chain:
        gone = batch_of(state, manifest, table, "tombstones")
        rows = batch_of(state, manifest, table, "rows")
        if rows is None:
            raise StateError("has no rows file in the manifest", version=manifest.name, table=table)
        pieces += [_kept(rows, None if gone is None else gone.column("key").to_numpy().copy())]
        if (pieces[0].dim, pieces[0].parts) != (pieces[-1].dim, pieces[-1].parts):
            raise StateError("has other columns than its snapshot", version=manifest.name, table=table)
    return _newest(pieces)


def _kept(rows: pa.RecordBatch, gone: Keys | None) -> LiveRows:
    """A file's rows, after the version's tombstones: a key may have lost its row and got one since.

    Tombstones have a norm of -1, which no row has.
    """
    gone = np.empty(0, np.int64) if gone is None else gone
    none, dim = np.zeros(len(gone), np.uint32), int(rows.schema.field("weight").type.list_size)
    wide = {field.name: pa.types.is_fixed_size_list(field.type) for field in rows.schema}
    return LiveRows(
        np.concatenate([gone, rows.column("key").to_numpy()]),
        np.concatenate([none, rows.column("seen").to_numpy()]),
        np.concatenate([none, rows.column("count").to_numpy()]),
        np.concatenate([np.full(len(gone), -1.0), _norms(rows.column("weight").flatten().to_numpy().reshape(-1, dim))]),
        dim,
        {name: is_wide for name, is_wide in wide.items() if name not in ("key", "seen", "count")},
        (len(gone),),
    )


def _norms(weight: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """L2 norms of rows (n, D), a bounded number of them at a time."""
    norms, step = np.empty(len(weight)), max(1, _NORM_VALUES // weight.shape[1])
    for start in range(0, len(weight), step):
        values = weight[start : start + step].astype(np.float64)
        norms[start : start + step] = np.sqrt(np.einsum("nd,nd->n", values, values))
    return norms


def _newest(pieces: list[LiveRows]) -> LiveRows:
    """What the pieces say of each key last, without keys whose last word is a tombstone."""
    keys = np.concatenate([piece.keys for piece in pieces])
    norms = np.concatenate([piece.norms for piece in pieces])
    order = np.argsort(keys, kind="stable")
    last = np.ones(len(keys), np.bool_)
    last[:-1] = keys[order[1:]] != keys[order[:-1]]
    chosen = order[last]
    chosen = chosen[norms[chosen] != -1.0]
    return LiveRows(
        keys[chosen],
        np.concatenate([piece.seen for piece in pieces])[chosen],
        np.concatenate([piece.counts for piece in pieces])[chosen],
        norms[chosen],
        pieces[0].dim,
        pieces[0].parts,
        tuple(count for piece in pieces for count in piece.lost),
    )

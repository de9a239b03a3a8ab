"""A chain of versions folded into the rows it stands for, of one table, without the tables themselves.

What a rows file holds is read off its own schema, which must be one that some table would write.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embtables.errors import StateError
from embtables.state.content import Keys
from embtables.state.manifest import Manifest
from embtables.state.store import StateFolder
from embtables.state.table_files import TOMBSTONES_SCHEMA, WAITING_SCHEMA, layout_of, read_batch, rows_schema
from embtables.state.versions import read_file

_SCHEMAS = {"waiting": WAITING_SCHEMA, "tombstones": TOMBSTONES_SCHEMA}


def rows_of_chain(state: StateFolder, chain: Sequence[Manifest], table: str) -> pa.Table:
    """The rows of a table as the last version of a chain has them, in no order.

    Raises:
        StateError: the versions have no such table, or a file is missing or damaged.
    """
    for manifest in reversed(chain):
        check_table(manifest, table)
    batches = [batch_of(state, manifest, table, "rows") for manifest in chain]
    gone = [batch_of(state, manifest, table, "tombstones") for manifest in chain]
    parts = []
    for age, batch in enumerate(batches):
        if batch is None or batch.num_rows == 0:
            continue
        keys = batch.column("key").to_numpy()
        stays = np.ones(len(keys), np.bool_)
        for later in range(age + 1, len(chain)):
            for newer in (batches[later], gone[later]):
                if newer is not None:
                    stays &= ~np.isin(keys, _keys(newer))
        parts.append(batch.filter(pa.array(stays)))
    if not parts:
        raise StateError("has no rows", version=chain[-1].name, table=table)
    return pa.Table.from_batches([part.replace_schema_metadata(None) for part in parts])


def _keys(batch: pa.RecordBatch) -> Keys:
    keys: npt.NDArray[np.int64] = batch.column("key").to_numpy()
    return keys


def check_table(manifest: Manifest, table: str) -> None:
    """Raises StateError where a version has no such table."""
    if table not in manifest.tables:
        known = ", ".join(sorted(manifest.tables))
        raise StateError(f"has no table '{table}'; it has: {known}", version=manifest.name)


def batch_of(
    state: StateFolder, manifest: Manifest, table: str, what: Literal["rows", "waiting", "tombstones"]
) -> pa.RecordBatch | None:
    """One of a table's files in a version, verified; None where the version has none.

    Raises:
        StateError: the file is missing or damaged.
    """
    names = [name for name in manifest.tables[table].files if name.startswith(f"{table}.{what}.")]
    if not names:
        return None
    raw, path = read_file(state, manifest, names[0]), state.folder.path(state.file(manifest, names[0]))
    rows = manifest.files[names[0]].rows
    schema = rows_schema(*layout_of(raw, path)) if what == "rows" else _SCHEMAS[what]
    return read_batch(raw, schema, -1 if rows is None else rows, path)

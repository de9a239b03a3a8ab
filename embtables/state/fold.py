"""A chain of versions folded into the rows it stands for, of one table, without the tables themselves: for export.

What a rows file holds is read off its own schema, which must be one that some table would write.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embtables.errors import StateError
from embtables.state.content import Keys
from embtables.state.manifest import Manifest
from embtables.state.store import StateFolder
from embtables.state.table_files import TOMBSTONES_SCHEMA, layout_of, read_batch, rows_schema
from embtables.state.table_read import read_file


def rows_of_chain(state: StateFolder, chain: Sequence[Manifest], table: str) -> pa.Table:
    """The rows of a table as the last version of a chain has them, in no order.

    Raises:
        StateError: the versions have no such table, or a file is missing or damaged.
    """
    if table not in chain[-1].tables:
        known = ", ".join(sorted(chain[-1].tables))
        raise StateError(f"has no table '{table}'; it has: {known}", version=chain[-1].name)
    batches = [_batch(state, manifest, table, "rows") for manifest in chain]
    gone = [_batch(state, manifest, table, "tombstones") for manifest in chain]
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


def _batch(state: StateFolder, manifest: Manifest, table: str, what: str) -> pa.RecordBatch | None:
    """What the files of a table's ranks hold, one after the other; None where the version has none."""
    batches = [_rank(state, manifest, name, what) for name in manifest.files_of(table, what)]
    return pa.concat_batches(batches) if len(batches) > 1 else batches[0] if batches else None


def _rank(state: StateFolder, manifest: Manifest, name: str, what: str) -> pa.RecordBatch:
    raw, path = read_file(state, manifest, name), state.folder.path(state.file(manifest, name))
    schema = rows_schema(*layout_of(raw, path)) if what == "rows" else TOMBSTONES_SCHEMA
    return read_batch(raw, schema, manifest.files[name].rows or 0, path)

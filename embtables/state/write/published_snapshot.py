"""A version of any chain written as the next snapshot of a folder's versions for servers, in bounded memory.

Keys are merged first; then weights are streamed from the chain's files into the new ones, and rounded on the way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy

from embtables.keyspace import ALL_BUCKETS
from embtables.rows.content import Streamed, scaled
from embtables.rows.optimizers import WEIGHT
from embtables.state.folder.version_folder import LeaseHolder, NewFile, StateFolder, VersionKind
from embtables.state.format.manifest import Manifest, table_file
from embtables.state.format.table_files import rows_file
from embtables.state.format.version import DENSE_FILE, TABLES_FILE, Tensors, dense_version
from embtables.state.format.weight_dtype import WeightDtype, WeightEncoder
from embtables.state.read.merge import MergedTable
from embtables.state.read.version_reader import read_tensors
from embtables.state.write.commit_across_ranks import commit
from embtables.state.write.merged_snapshot import copied_artifacts
from embtables.state.write.rank_files import RankFiles, need_finite_cold

Array = npt.NDArray[Any]


def write_published_snapshot(
    holder: LeaseHolder,
    source: StateFolder,
    chain: Sequence[Manifest],
    dtype: WeightDtype,
    content: Mapping[str, Any],
    side_files: Mapping[str, NewFile],
) -> Manifest:
    """Writes the last version of a chain, without what only training needs.

    Weights are the true ones: a scale is multiplied in.

    Args:
        holder: of the lease of the folder that is written to.
        source: the folder that is read.
        content: of the new version.
        side_files: the side tables that the content names.

    Raises:
        StateError: what is read is damaged, a weight is not finite or too large for the dtype, the disk is full or
            failing, or the lease was lost. Nothing of the new version is left.
    """
    last = chain[-1]
    with ExitStack() as stack:
        found = RankFiles({}, {})
        for table in last.tables:
            merged = stack.enter_context(MergedTable(source, chain, table, scratch=holder.state.folder.scratch))
            _add_table(found, merged, last, table, dtype)
        beside = _cold_weights(read_tensors(source, last, TABLES_FILE), last)
        tensors = read_tensors(source, dense_version(chain), DENSE_FILE)
        dense = {name: values for name, values in tensors.items() if name.startswith("dense/")}
        found.files[TABLES_FILE] = NewFile([safetensors.numpy.save(beside)])
        found.files[DENSE_FILE] = NewFile([safetensors.numpy.save(dense)])
        found.files |= copied_artifacts(source, chain[0])
        found.files |= side_files
        return commit(holder, VersionKind("serving", projection="weights"), lambda: found, content)


def _add_table(found: RankFiles, merged: MergedTable, last: Manifest, table: str, dtype: WeightDtype) -> None:
    """The rows of a table, in one file."""
    entry, name = last.tables[table], table_file(table, "rows", 0)
    encoder = WeightEncoder(dtype, table, lambda at: int(merged.read("key", at, at + 1)[0]))
    columns = {
        "key": _column(merged, "key"),
        WEIGHT: encoder.streamed(_column(merged, WEIGHT)),
        "seen": _column(merged, "seen"),
    }
    begins = merged.begins.astype(np.uint64)
    chunks = rows_file(columns, merged.format, merged.row_columns, begins, "weights", dtype)
    found.files[name] = NewFile(chunks, merged.rows, ALL_BUCKETS)
    shared = {"now": entry.now, "steps": entry.steps, "updates": entry.updates, "scale": 1.0, "cold": {}, "sketch": 0}
    found.tables[table] = {"files": [name], "shared": shared, "figures": entry.figures}
    found.tables[table] |= {} if entry.keys_of is None else {"keys_of": entry.keys_of}
    if dtype != "fp32":
        found.encoders[table] = encoder
        found.tables[table]["dtype"] = dtype


def _column(merged: MergedTable, name: str) -> Streamed:
    """A column as `read` gives it, of all rows."""
    nothing, step = merged.read(name, 0, 0), merged.rows_at_a_time(name)

    def pieces() -> Iterator[Array]:
        for start in range(0, merged.rows, step):
            yield merged.read(name, start, min(start + step, merged.rows))

    return Streamed((merged.rows, *nothing.shape[1:]), nothing.dtype, pieces)


def _cold_weights(beside: Tensors, last: Manifest) -> Tensors:
    """The weights of the cold rows, without their optimizer state."""
    found = {}
    for table, entry in last.tables.items():
        name = f"{table}/cold/{WEIGHT}"
        if name in beside:
            found[name] = scaled(beside[name], entry.scale)
            need_finite_cold(found[name], table)
    return found

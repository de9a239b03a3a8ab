"""The rows of one table as a chain of versions has them, as Arrow tables: for export and for looking into."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from embtables.errors import StateError
from embtables.state.folder.version_folder import StateFolder
from embtables.state.format.manifest import Manifest
from embtables.state.format.table_files import rows_schema
from embtables.state.read.merge import MergedTable, verify_table


def rows_of_chain(
    state: StateFolder, chain: Sequence[Manifest], table: str, columns: Sequence[str] | None = None
) -> pa.Table:
    """The rows of a table as the last version of a chain has them, sorted by bucket and then by key.

    Args:
        columns: which ones, of key, weight, the optimizer's state, seen and count; by default all.

    Raises:
        StateError: as `parts_of_chain`.
    """
    return pa.concat_tables(parts_of_chain(state, chain, table, columns))


def parts_of_chain(
    state: StateFolder, chain: Sequence[Manifest], table: str, columns: Sequence[str] | None = None
) -> Iterator[pa.Table]:
    """The same in parts of a few megabytes, at least one.

    Raises:
        StateError: the versions have no such table or column, or a file is missing or damaged.
    """
    verify_table(state, chain, table)
    with MergedTable(state, chain, table) as merged:
        names = merged.columns if columns is None else tuple(columns)
        for name in names:
            if name not in merged.columns:
                raise StateError(f"has no column '{name}'; it has: {', '.join(merged.columns)}", table=table)
        fields = rows_schema(merged.dim, merged.parts, merged.projection)
        schema = pa.schema([fields.field(name) for name in names])
        step = merged.rows_at_a_time(*names)
        for start in range(0, max(1, merged.rows), step):
            arrays = [_array(merged, name, start, start + step, schema.field(name).type) for name in names]
            yield pa.table(arrays, schema=schema)


def _array(merged: MergedTable, name: str, start: int, stop: int, type_: pa.DataType) -> pa.Array:
    values = merged.read(name, start, min(stop, merged.rows))
    flat = pa.array(values.reshape(-1))
    return flat if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, type=type_)

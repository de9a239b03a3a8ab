"""`read_rows`: the rows of a table as a version has them, streamed as Arrow record batches. Without torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from embtables.errors import ConfigError, StateError
from embtables.given import as_name, as_names, as_path, need
from embtables.state.folder.version_folder import StateFolder
from embtables.state.format.table_files import rows_schema
from embtables.state.read.merge import MergedTable
from embtables.state.read.saved_version import SavedVersion, find_version, open_folder


def read_rows(
    source: SavedVersion | StateFolder | str | Path, table: str, columns: Sequence[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """The rows of a table as a version has them, in batches of a few megabytes; at least one, which may be empty.

    Rows that deltas replaced or removed are not among them. They are sorted by bucket of the key space and then by key,
    so that two reads of a version give the same batches. Memory holds a batch and a few blocks, not the table; a
    temporary file without a name holds the places of its rows, 8 bytes per row. Every block that is read is verified.

    Args:
        source: a version, or a folder whose newest version is read: that of a run, or a state folder.
        table: its name; first-order weights of a table are `linear.<name>`.
        columns: which ones, in this order: `key` int64; `weight` and optimizer state, float32 or lists of D of it;
            `seen` uint32, the table's clock when the key was last looked up in training; `count` uint32, gradients that
            the row has had. By default all; a version of `weights` has no optimizer state and no `count`.

    Raises:
        ConfigError: the folder has no versions, or an argument is of another kind.
        StateError: there is no such version, table or column; or a file is missing or damaged, which may be found only
            while batches are read.

    Example:
        >>> import tempfile, torch
        >>> from pathlib import Path
        >>> from embtables import Feature, FixedTable, LeaseHolder, Sgd, StateFolder, Tables, state
        >>> from embtables.state.folder.version_folder import VersionKind
        >>> from embtables.state.format.version import Version
        >>> from embtables.state.write.commit_across_ranks import write_version
        >>> tables = Tables([FixedTable(name="t", dim=2, num_rows=3, optimizer=Sgd(learning_rate=0.1))],
        ...                 [Feature(name="f", table="t")], seed=1)
        >>> tables.set_weight("t", torch.arange(6.0).reshape(3, 2))
        >>> place = tempfile.TemporaryDirectory()
        >>> with LeaseHolder(StateFolder(Path(place.name))) as holder:
        ...     _ = write_version(holder, VersionKind("resume"), tables.stored, Version(tables.content()))
        >>> folder = state.open_folder(place.name)
        >>> state.list_versions(folder)
        ['resume-1']
        >>> version = state.find_version(folder, "resume-1")
        >>> version.tables
        ('t',)
        >>> rows = [row for batch in state.read_rows(version, "t", ["key", "weight"]) for row in batch.to_pylist()]
        >>> sorted((row["key"], row["weight"]) for row in rows)
        [(0, [0.0, 1.0]), (1, [2.0, 3.0]), (2, [4.0, 5.0])]
        >>> place.cleanup()
    """
    if isinstance(source, str | Path):
        source = open_folder(as_path(source, "source"))
    need(source, SavedVersion | StateFolder, "source", "a version, a StateFolder, or the path of a folder")
    as_name(table, "table")
    version = source if isinstance(source, SavedVersion) else find_version(source)
    merged = MergedTable(version.folder, version.chain, table)
    names = merged.columns if columns is None else as_names(columns, "columns")
    if not names:
        raise ConfigError(f"is empty; name some of {', '.join(merged.columns)}", argument="columns")
    for name in names:
        if name not in merged.columns:
            raise StateError(f"has no column '{name}'; it has: {', '.join(merged.columns)}", table=table)
    fields = rows_schema(merged.format, merged.row_columns, merged.projection)
    return _batches(merged, pa.schema([fields.field(name) for name in names]))


def _batches(merged: MergedTable, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    with merged:
        step = merged.rows_at_a_time(*schema.names)
        for start in range(0, max(1, merged.rows), step):
            stop = min(start + step, merged.rows)
            arrays = [_array(merged, field.name, start, stop, field.type) for field in schema]
            yield pa.record_batch(arrays, schema=schema)


def _array(merged: MergedTable, name: str, start: int, stop: int, type_: pa.DataType) -> pa.Array:
    values = merged.read(name, start, stop)
    flat = pa.array(values.reshape(-1))
    return flat if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, type=type_)

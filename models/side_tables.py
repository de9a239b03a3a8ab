"""The side tables of a serving version, read from its files."""

from __future__ import annotations

import pyarrow as pa

from embtables.errors import StateError
from embtables.models.version_content import SideTableContent
from embtables.state.folder.version_folder import StateFolder
from embtables.state.format.manifest import Manifest
from embtables.state.format.side_file import parse_side_file
from embtables.state.read.range_reader import RangeReader


def read_side_table(state: StateFolder, version: Manifest, of: SideTableContent) -> pa.Table:
    """A side table among a version's own files, verified and copied: its keys and columns.

    Raises:
        StateError: the file is missing or damaged, or not what the content says; it is named.
    """
    reader = RangeReader(state, version, of.file)
    table = parse_side_file(reader.read_all(), reader.path)
    wanted = sorted([*of.keys, *of.columns])
    if sorted(table.column_names) != wanted:
        there = f"has columns {', '.join(table.column_names)}; the version says {', '.join(wanted)}"
        raise StateError(there, file=reader.path, side_table=of.name)
    if table.num_rows != of.rows:
        raise StateError(
            f"has {table.num_rows:,} rows; the version says {of.rows:,}", file=reader.path, side_table=of.name
        )
    return table

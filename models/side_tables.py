"""The side tables of a serving version, read from its files."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from embtables.errors import StateError
from embtables.models.version_content import SideTableContent, scoring_content
from embtables.state.folder.version_folder import StateFolder
from embtables.state.format.manifest import Manifest
from embtables.state.format.side_file import parse_side_file
from embtables.state.read.range_reader import RangeReader


def read_side_tables(state: StateFolder, chain: Sequence[Manifest]) -> dict[str, tuple[str, pa.Table]]:
    """The side tables of the version that a chain leads to, verified and copied.

    Returns:
        By name the checksum of its file, and its table: keys and columns. Tables with the same checksum are equal.

    Raises:
        StateError: a file is missing or damaged, or not what the version's content says; it is named.
    """
    return {of.name: read_side_table(state, chain, of) for of in scoring_content(chain[-1]).side_tables}


def read_side_table(state: StateFolder, chain: Sequence[Manifest], of: SideTableContent) -> tuple[str, pa.Table]:
    """One side table of the version that a chain leads to, or of the newest of these versions that has its file.
    Returns and raises as `read_side_tables`.
    """
    version = next((v for v in reversed(chain) if of.file in v.files), None)
    if version is None:
        raise StateError(f"has no file {of.file}", version=chain[-1].name, side_table=of.name)
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
    return version.files[of.file].xxh3, table

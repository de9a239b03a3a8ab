"""The side tables of a version, from its files: what the version before had is neither read nor indexed again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from embtables.errors import StateError
from embtables.models.side_tables import read_side_table
from embtables.models.version_content import ScoringContent, SideTableContent
from embtables.serving.versions.side_tables.side_table import PublishedSideTable
from embtables.state.folder.version_folder import StateFolder
from embtables.state.format.manifest import Manifest
from embtables.state.format.side_file import side_files_of


def load_side_tables(
    state: StateFolder,
    chain: Sequence[Manifest],
    content: ScoringContent,
    before: Mapping[str, PublishedSideTable] | None = None,
) -> dict[str, PublishedSideTable]:
    """The side tables that a version's content names, by name, in the order in which they are joined.

    Args:
        chain: that leads to the version; of one that follows what is loaded, the versions that are new.
        before: the side tables of what is loaded: a table that the new versions do not list is one of them.

    Raises:
        StateError: a file is missing or damaged, or not what the content says; see `PublishedSideTable`.
    """
    by_file = {table.of.file: table for table in (before or {}).values()}
    holders = side_files_of(chain)
    found = {}
    for of in content.side_tables:
        holder, former = holders.get(of.file), by_file.get(of.file)
        if holder is None and former is None:
            raise StateError(f"has no file {of.file}; publish it again", version=chain[-1].name, side_table=of.name)
        found[of.name] = _load(state, holder, of, former)
    return found


def _load(
    state: StateFolder, holder: Manifest | None, of: SideTableContent, former: PublishedSideTable | None
) -> PublishedSideTable:
    """One of them; `holder` has its file, `former` is what is loaded."""
    if former is not None and (holder is None or holder.files[of.file].xxh3 == former.checksum):
        return former if former.of == of else PublishedSideTable(of, former.checksum, former.table)
    assert holder is not None
    return PublishedSideTable(of, holder.files[of.file].xxh3, read_side_table(state, holder, of))

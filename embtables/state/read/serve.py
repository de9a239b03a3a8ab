"""`load_served`: tables for inference that hold what a chain of versions says, read in pieces."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

from embtables.errors import StateError
from embtables.given import need
from embtables.keyspace import NUM_BUCKETS, Buckets
from embtables.rows.content import TableContent
from embtables.state.folder.version_folder import StateFolder
from embtables.state.format.manifest import Manifest
from embtables.state.format.version import Version
from embtables.state.read.load import need_artifacts, need_clocks
from embtables.state.read.version_reader import read_version
from embtables.tables.served_tables import ServedTables

PIECE_BYTES = 64 << 20  # of files, about
_LEAST_ROW_BYTES = 12  # of a row in a file: its key and its last sight


def load_served(
    state: StateFolder,
    chain: Sequence[Manifest],
    tables: ServedTables,
    check: Callable[[Manifest, Mapping[str, TableContent]], None] | None = None,
) -> Version:
    """Makes tables hold the last version of a chain: its snapshot and then each delta, bucket range by bucket range, so
    that memory holds the rows and one piece.

    Args:
        chain: of versions of either projection.
        tables: fresh ones; a key that the snapshot lacks must not have a row.
        check: called with a version and each piece of it, by table, before it is taken over; what it raises ends the
            loading.

    Returns:
        The last version, without its tables.

    Raises:
        ConfigError: an argument is of another kind.
        StateError: the tables hold rows already; or a file is missing, damaged or of other tables, whose encoders had
            other data for example, and the tables are not to be used.
    """
    need(tables, ServedTables, "tables", "ServedTables")
    for config in tables.configs:
        if tables.num_rows(config.name):
            raise StateError("holds rows already; a snapshot is loaded into fresh tables", table=config.name)
    need_artifacts(state, chain[0], tables)
    need_clocks(chain)
    _reserve(chain, tables)
    last = Version({})
    for manifest in chain:
        ranges = pieces(manifest)
        for number, buckets in enumerate(ranges, 1):
            dense, last = last.tensors, read_version(state, manifest, tables.stored, buckets)
            last.tensors = last.tensors or dense
            if check is not None:
                check(manifest, last.tables)
            for table in list(last.tables):  # popped, so that memory has one piece and not two
                tables.take_over(table, last.tables.pop(table), more=number < len(ranges))
    return Version({}, last.tensors, last.content)


def _reserve(chain: Sequence[Manifest], tables: ServedTables) -> None:
    """Room for the snapshot's rows, so that a map of keys is made once; for no more than its files can hold."""
    for config in tables.configs:
        if config.name in chain[0].tables:
            files = [chain[0].files[name] for name in chain[0].files_of(config.name, "rows")]
            tables.reserve(config.name, sum(min(file.rows or 0, file.bytes // _LEAST_ROW_BYTES) for file in files))


def pieces(manifest: Manifest) -> list[Buckets]:
    """Ranges of buckets, of about PIECE_BYTES of the version's files each."""
    size = sum(manifest.files[file].bytes for entry in manifest.tables.values() for file in entry.files)
    count = min(NUM_BUCKETS, max(1, -(-size // PIECE_BYTES)))
    ends = [piece * NUM_BUCKETS // count for piece in range(count + 1)]
    return list(pairwise(ends))

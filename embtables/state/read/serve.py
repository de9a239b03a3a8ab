"""`load_served`: tables for inference that hold what a chain of versions says, read in pieces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from embtables.errors import StateError
from embtables.given import need
from embtables.keyspace import NUM_BUCKETS, Buckets
from embtables.state.folder.version_folder import StateFolder
from embtables.state.format.manifest import Manifest
from embtables.state.format.version import Version
from embtables.state.read.load import need_artifacts, need_clocks
from embtables.state.read.version_reader import read_version
from embtables.tables.served_tables import ServedTables

PIECE_BYTES = 64 << 20  # of files, about


def load_served(state: StateFolder, chain: Sequence[Manifest], tables: ServedTables) -> Version:
    """Makes tables hold the last version of a chain: its snapshot and then each delta, bucket range by bucket range, so
    that memory holds the rows and one piece.

    Args:
        chain: of versions of either projection.
        tables: fresh ones; a key that the snapshot lacks must not have a row.

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
    last = Version({})
    for manifest in chain:
        for buckets in pieces(manifest):
            last = read_version(state, manifest, tables.stored, buckets)
            for table, content in last.tables.items():
                tables.take_over(table, content)
    return Version({}, last.tensors, last.content)


def pieces(manifest: Manifest) -> Iterator[Buckets]:
    """Ranges of buckets, of about PIECE_BYTES of the version's files each."""
    size = sum(manifest.files[file].bytes for entry in manifest.tables.values() for file in entry.files)
    count = min(NUM_BUCKETS, max(1, -(-size // PIECE_BYTES)))
    for piece in range(count):
        yield piece * NUM_BUCKETS // count, (piece + 1) * NUM_BUCKETS // count

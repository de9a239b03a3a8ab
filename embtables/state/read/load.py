"""`load`: tables that hold what a chain of versions says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from embtables.errors import StateError
from embtables.keyspace import ALL_BUCKETS, Buckets
from embtables.state.folder.version_folder import StateFolder
from embtables.state.format.manifest import Manifest
from embtables.state.format.version import Version
from embtables.state.read.version_files import read_version
from embtables.tables import Tables


def load(state: StateFolder, chain: Sequence[Manifest], tables: Tables, buckets: Buckets = ALL_BUCKETS) -> Version:
    """Makes the tables hold the last version of a chain; returns that one.

    Args:
        buckets: a range [first, end) of the key space: the tables then hold the keys of these buckets alone, as one
            rank of several does. Rows of a fixed table that are of other buckets are left as they are.

    Raises:
        StateError: the version holds weights alone, and the tables are as they were; or a file is missing, damaged or
            of other tables, and they are not to be used.
    """
    if chain[-1].projection != "full":
        reason = "holds weights alone, for servers: training needs a version with optimizer state, such as resume-<n>"
        raise StateError(reason, folder=state.folder.root, version=chain[-1].name)
    stored = tables.stored
    last = Version({})

    def versions() -> Any:
        nonlocal last
        for manifest in chain:
            last = read_version(state, manifest, stored, buckets)
            yield last.tables

    tables.load(versions())
    return last

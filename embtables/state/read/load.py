"""`load`: tables that hold what a chain of versions says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
        StateError: a file is missing, damaged or of other tables; the tables are then not to be used.
    """
    stored = tables.stored
    last = Version({})

    def versions() -> Any:
        nonlocal last
        for manifest in chain:
            last = read_version(state, manifest, stored, buckets)
            yield last.tables

    tables.load(versions())
    return last

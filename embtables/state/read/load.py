"""`load`: tables that hold what a chain of versions says."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from embtables.errors import StateError
from embtables.keyspace import ALL_BUCKETS, Buckets
from embtables.state.folder.version_folder import StateFolder
from embtables.state.format.manifest import Manifest
from embtables.state.format.version import Version
from embtables.state.read.version_reader import artifact_digests, read_version
from embtables.tables.lookup_tables import LookupTables
from embtables.tables.table_set import Tables


def load(state: StateFolder, chain: Sequence[Manifest], tables: Tables, buckets: Buckets = ALL_BUCKETS) -> Version:
    """Makes the tables hold the last version of a chain; returns that one.

    Args:
        buckets: a range [first, end) of the key space: the tables then hold only the keys of these buckets, as one
            rank of several does. Rows of a fixed table in other buckets stay as they are, but for
            what the version's rows have decayed.

    Raises:
        StateError: the version holds weights alone, and the tables are as they were; or a file is missing, damaged or
            of other tables, whose encoders had other data for example, and they are not to be used.
    """
    if chain[-1].projection != "full":
        reason = "holds weights alone, for servers: training needs a version with optimizer state, such as resume-<n>"
        raise StateError(reason, folder=state.folder.root, version=chain[-1].name)
    need_artifacts(state, chain[0], tables)
    need_clocks(chain)
    stored = tables.stored
    last = Version({})

    def versions() -> Any:
        nonlocal last
        for manifest in chain:
            dense, last = last.tensors, read_version(state, manifest, stored, buckets)
            last.tensors = last.tensors or dense
            yield last.tables

    tables.load(versions())
    return last


def need_clocks(chain: Sequence[Manifest]) -> None:
    """Raises StateError if the clock of a table goes back along a chain: rows would have been seen later than now."""
    for before, version in pairwise(chain):
        for name, entry in version.tables.items():
            if name in before.tables and entry.now < before.tables[name].now:
                reason = f"its clock is {entry.now}, that of {before.name} is {before.tables[name].now}"
                raise StateError(reason, version=version.name, table=name)


def need_artifacts(state: StateFolder, snapshot: Manifest, tables: LookupTables) -> None:
    """Raises StateError if an encoder of the tables has other data than the version's: it makes other keys."""
    there, here = artifact_digests(snapshot), {name: of.digests for name, of in tables.artifacts.items()}
    for feature in sorted(there.keys() | here.keys()):
        if there.get(feature) != here.get(feature):
            raise StateError(
                "its encoder has other data than the version: make the tables with artifacts=read_artifacts(...)",
                folder=state.folder.root,
                version=snapshot.name,
                feature=feature,
            )

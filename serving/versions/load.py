"""From files to a version that answers: a snapshot into fresh tables, a delta read and judged before it is applied.

    snapshot: piece by piece, read -> verified -> values judged -> fresh tables
    delta:    read -> verified -> schema, clocks, values judged -> scorer made ... -> its rows applied to the tables

Whatever is wrong with a version is found before its first row is applied.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from embtables.errors import StateError
from embtables.models.scorer import Scorer
from embtables.models.served import served_tables
from embtables.models.version_content import ScoringContent, scoring_content
from embtables.rows.content import TableContent
from embtables.serving.versions.checks import BadValuesError, Norms, ValueChecks, ValueLimits, check_tensors
from embtables.serving.versions.schemas import need_same_tables
from embtables.serving.versions.served_version import AppliedRows, ServedVersion
from embtables.serving.versions.side_tables.load_side_tables import load_side_tables
from embtables.serving.versions.side_tables.side_table import PublishedSideTable
from embtables.state.folder.version_folder import StateFolder
from embtables.state.format.manifest import Manifest
from embtables.state.format.version import Tensors
from embtables.state.read.load import need_clocks
from embtables.state.read.serve import load_served
from embtables.state.read.version_reader import read_version
from embtables.tables.served_tables import ServedTables


@dataclass(frozen=True, slots=True)
class Delta:
    """A delta in memory, judged: nothing of it is applied.

    Attributes:
        served: what answers once its rows are in the tables.
        tables: by table what changed.
        norms: by table, of its rows (n,).
        tensors: the dense ones of the version.
    """

    served: ServedVersion
    tables: Mapping[str, TableContent]
    norms: Mapping[str, Norms]
    tensors: Tensors

    @property
    def rows(self) -> int:
        """How many rows it changes, of all tables."""
        return sum(len(content.keys) for content in self.tables.values())

    @property
    def tombstones(self) -> int:
        """How many keys lose their rows, of all tables."""
        return sum(len(content.tombstones) for content in self.tables.values())


@dataclass(slots=True)
class Loaded:
    """Tables that hold a version, and what answers over them. One thread changes it; `served` does not change.

    Attributes:
        served: the version.
        tables: its rows, and those of the versions that will follow it.
        checks: knows the norms of the rows.
        tensors: the version's dense ones, which a delta may not have.
    """

    served: ServedVersion
    tables: ServedTables
    checks: ValueChecks
    tensors: Tensors

    @property
    def manifest(self) -> Manifest:
        """Of the version."""
        return self.served.manifest

    def num_rows(self) -> int:
        """How many rows there are, of all tables."""
        return sum(self.tables.num_rows(config.name) for config in self.tables.configs)

    def apply(self, delta: Delta) -> None:
        """Applies upserts and tombstones, while others read the tables.

        Until the end, `served` is the version before: a reader that has it finds rows of it or of the delta, each
        whole.
        """
        self.served.applied.is_changing = True
        for table, content in delta.tables.items():
            self.tables.take_over(table, content)
        self.checks.took_over(delta.norms)
        self.served, self.tensors = delta.served, delta.tensors


def load_snapshot(
    state: StateFolder,
    snapshot: Manifest,
    limits: ValueLimits,
    go_on: Callable[[], None] = lambda: None,
    before: Loaded | None = None,
) -> Loaded:
    """A snapshot in fresh tables.

    Args:
        before: what it will replace; its rows are held against the norms of those.
        go_on: called between pieces; what it raises ends the loading.

    Raises:
        StateError: a file is missing or damaged, this build cannot read the version, or its values are refused
            (BadValuesError).
    """
    content = scoring_content(snapshot)
    tables, checks = served_tables(state, [snapshot]), ValueChecks(limits, None if before is None else before.checks)

    def check(manifest: Manifest, piece: Mapping[str, TableContent]) -> None:
        go_on()
        checks.took_over(checks.check_rows(manifest.name, piece))

    tensors = load_served(state, [snapshot], tables, check).tensors
    checks.end_snapshot(snapshot.name)
    side_tables = load_side_tables(state, [snapshot], content)
    served = _served(snapshot, content, tables, tensors, side_tables, AppliedRows(snapshot.name))
    return Loaded(served, tables, checks, tensors)


def read_delta(state: StateFolder, loaded: Loaded, delta: Manifest) -> Delta:
    """The delta to what is loaded, in memory; all of its files are verified, all of its values judged.

    Raises:
        StateError: a file is missing or damaged, or is not what these tables would have written; it is of another
            schema (OtherSchemaError), or its values are refused (BadValuesError).
    """
    content = scoring_content(delta)
    if delta.schema_hash != loaded.manifest.schema_hash:
        need_same_tables(loaded.served.content, content, delta)
    try:
        need_clocks([loaded.manifest, delta])
    except StateError as error:
        raise BadValuesError(error.message, **error.path) from None
    version = read_version(state, delta, loaded.tables.stored)
    norms = loaded.checks.check_rows(delta.name, version.tables)
    before = loaded.served
    side_tables = load_side_tables(state, [delta], content, before.side_tables)
    tensors = version.tensors or loaded.tensors
    served = _served(delta, content, loaded.tables, tensors, side_tables, before.applied)
    return Delta(served, version.tables, norms, tensors)


def load(
    state: StateFolder,
    chain: Sequence[Manifest],
    limits: ValueLimits | None = None,
    go_on: Callable[[], None] = lambda: None,
) -> Loaded:
    """The version that a chain leads to: the tables of its snapshot with each delta applied. Raises as both."""
    loaded = load_snapshot(state, chain[0], limits or ValueLimits(), go_on)
    for manifest in chain[1:]:
        go_on()
        loaded.apply(read_delta(state, loaded, manifest))
    loaded.served.applied.version = loaded.served.name
    loaded.served.applied.is_changing = False
    return loaded


def _served(
    manifest: Manifest,
    content: ScoringContent,
    tables: ServedTables,
    tensors: Tensors,
    side_tables: Mapping[str, PublishedSideTable],
    applied: AppliedRows,
) -> ServedVersion:
    """What answers with a version. Raises StateError where its dense tensors are not the model's, or not finite."""
    check_tensors(manifest.name, tensors)
    scorer = Scorer.of_content(content, tables, tensors, manifest.name)
    scorer.model.eval()
    return ServedVersion(manifest, content, scorer, side_tables, time.time(), applied)

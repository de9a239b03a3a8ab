"""`ServedVersion`: all that one version answers with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from embtables.models.scorer import Scorer
from embtables.models.version_content import ScoringContent, SideTableContent
from embtables.state.format.manifest import Manifest


@dataclass(frozen=True, slots=True)
class PublishedSideTable:
    """A side table that a version names: what training joined to the log, or prepared from it.

    Attributes:
        of: its keys, columns and what a missing key gives, as the version's content says.
        checksum: of its file in the version; tables with the same checksum are equal.
        table: `of.keys` and `of.columns`.
    """

    of: SideTableContent
    checksum: str
    table: pa.Table


class AppliedRows:
    """How far the rows of a set of tables have come. The versions that share the tables share it.

    Attributes:
        version: the name of the newest version whose rows are all applied.
    """

    def __init__(self, version: str) -> None:
        self.version = version


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class ServedVersion:
    """A version that is ready to answer.

    Dense weights, fitted transforms and side tables are this version's alone. Tables are shared with the versions of
    which it is a delta: their rows change while requests read them, each row whole.

    Attributes:
        manifest: of the newest version in it.
        content: schema, transforms and what else scoring needs.
        scorer: the model over the served tables (`scorer.tables`).
        side_tables: by name.
        loaded_at: `time.time()` when it was ready.
        applied: how far the rows of its tables have come.
    """

    manifest: Manifest
    content: ScoringContent
    scorer: Scorer
    side_tables: Mapping[str, PublishedSideTable]
    loaded_at: float
    applied: AppliedRows

    @property
    def name(self) -> str:
        """`serving-12`."""
        return self.manifest.name

    @property
    def row_version(self) -> str:
        """The newest version whose rows are all in its tables: this one, or one after it.

        A request reads it before it looks rows up: what it then finds is of this version or of one that came meanwhile.
        """
        return self.applied.version

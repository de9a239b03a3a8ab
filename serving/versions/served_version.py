"""`ServedVersion`: all that one version answers with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from embtables.models.scorer import Scorer
from embtables.models.version_content import ScoringContent
from embtables.serving.versions.side_tables.side_table import PublishedSideTable
from embtables.state.format.manifest import Manifest


class AppliedRows:
    """How far the rows of a set of tables have come. The versions that share the tables share it.

    Attributes:
        version: the name of the newest version whose rows are all applied.
        is_changing: whether rows of the version after it are being applied.
    """

    def __init__(self, version: str) -> None:
        self.version = version
        self.is_changing = False


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

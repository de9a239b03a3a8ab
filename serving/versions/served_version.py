"""`ServedVersion`: all that one version answers with. `Live`: which one that is, swapped whole."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass

from embtables.models.scorer import Scorer
from embtables.models.version_content import ScoringContent
from embtables.serving.versions.side_table import PublishedSideTable
from embtables.state.format.manifest import Manifest


@dataclass(frozen=True, slots=True)
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
    """

    manifest: Manifest
    content: ScoringContent
    scorer: Scorer
    side_tables: Mapping[str, PublishedSideTable]
    loaded_at: float

    @property
    def name(self) -> str:
        """`serving-12`."""
        return self.manifest.name


class Live:
    """The version that answers. One writer puts; any thread reads `current` once for each request and keeps it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.current: ServedVersion | None = None
        self.row_version: str | None = None  # the newest whose rows are all applied

    def put(self, version: ServedVersion) -> None:
        """From now on requests are answered with this version; its rows are all applied."""
        with self._changed:
            self.row_version = version.name
            self.current = version
            self._changed.notify_all()

    def wait(self, seconds: float) -> ServedVersion | None:
        """The current version; waits for the first one at most `seconds`."""
        with self._changed:
            self._changed.wait_for(lambda: self.current is not None, seconds)
            return self.current

"""`RunPlace`: where a run keeps what it learns and reports. `RunInMemory` is the place of a run that writes nothing.

The other place is a folder, `RunDir` (run_dir.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from embtables.state.folder.memory_folder import MemoryFolder
from embtables.state.folder.protocol import Folder

if TYPE_CHECKING:
    from embtables.models.scorer import Scorer


class RunPlace(Protocol):
    """What training needs of the place of a run.

    Attributes:
        keeps_every_version: whether versions are kept for a resume; else the best one alone is, while the run goes on.
    """

    keeps_every_version: bool

    @property
    def path(self) -> Path | None:
        """The folder, if it is one."""

    @property
    def checkpoints(self) -> Path | Folder:
        """Where versions lie."""

    @property
    def stop_file(self) -> Path | None:
        """The file that asks the run's ranks to stop."""

    @property
    def tensorboard(self) -> Path | None:
        """Where TensorBoard's event files lie; None: there are none."""

    @property
    def quarantine(self) -> Path | None:
        """Where bad rows are listed; None: they are counted by cause, in the history."""

    @property
    def files_record(self) -> Path | None:
        """Where the lists of files lie that epochs began with; None: in memory."""

    def go_on_hint(self) -> str:
        """How a run that was stopped is gone on with."""

    def resume_command(self) -> str:
        """The command that goes on with a run in a folder."""

    def append_metrics(self, records: Sequence[dict[str, Any]]) -> None:
        """Adds lines to the history: all of them, or none and OSError."""

    def truncate_metrics(self, step: int) -> None:
        """Drops the lines of steps after `step`."""

    def finish(self, report: dict[str, Any], scorer: Scorer, id_kinds: Mapping[str, str]) -> None:
        """The run has ended: its report, its model at the evaluated state, and by column what its ids are made of."""

    def report(self) -> dict[str, Any]:
        """The report; empty if the run has not ended."""

    def history(self) -> list[dict[str, Any]]:
        """The lines of the history: figures of training and of evaluations, each with its step."""


class RunInMemory:
    """A run that writes nothing: history, report and model are in this object, and end with it.

    While it trains, the best version so far takes as much memory as its files would take of a disk.
    """

    keeps_every_version = False
    path: Path | None = None
    stop_file: Path | None = None
    tensorboard: Path | None = None
    quarantine: Path | None = None
    files_record: Path | None = None

    def __init__(self) -> None:
        self.checkpoints: Path | Folder = MemoryFolder()
        self.scorer: Scorer | None = None
        self.id_kinds: dict[str, str] = {}
        self._history: list[dict[str, Any]] = []
        self._report: dict[str, Any] = {}

    def go_on_hint(self) -> str:
        """See RunPlace."""
        return "and nothing is kept of it: give runs_dir to go on from there"

    def resume_command(self) -> str:
        """See RunPlace: there is none."""
        return "nothing"

    def append_metrics(self, records: Sequence[dict[str, Any]]) -> None:
        """See RunPlace."""
        self._history += records

    def truncate_metrics(self, step: int) -> None:
        """See RunPlace: nothing goes on from an earlier step."""

    def finish(self, report: dict[str, Any], scorer: Scorer, id_kinds: Mapping[str, str]) -> None:
        """See RunPlace. The versions go."""
        self._report, self.scorer, self.id_kinds = report, scorer, dict(id_kinds)
        self.checkpoints = MemoryFolder()

    def report(self) -> dict[str, Any]:
        """See RunPlace."""
        return self._report

    def history(self) -> list[dict[str, Any]]:
        """See RunPlace."""
        return list(self._history)

"""A version by name: the last one, the best one, or its name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from embtables.errors import StateError
from embtables.state.folder.protocol import Folder
from embtables.state.folder.version_folder import StateFolder
from embtables.state.format.manifest import Manifest, Purpose

BEST = "best"


def find(folder: Path | Folder, which: str | None = None) -> list[Manifest]:
    """The versions that lead to one of a folder's versions, its snapshot first.

    Args:
        which: `last`, `best` (the one that is pinned so), or a version's name: `resume-12`;
            by default the best one if there is one, else the last.

    Raises:
        StateError: there is none, or it is damaged.
    """
    state = StateFolder(folder)
    place = state.folder.root
    if which is None:
        which = BEST if has_best(folder) else "last"
    if which == BEST:
        pinned = state.pinned(BEST)
        if pinned is None:
            raise StateError("there is no best checkpoint: the run has not been evaluated", folder=place)
        return state.chain(*pinned)
    if which == "last":
        numbers = state.sequences("resume")
        if not numbers:
            raise StateError("there is no last checkpoint; the run ended before its first", folder=place)
        return state.chain("resume", numbers[-1])
    for purpose in get_args(Purpose):
        if found := re.fullmatch(rf"{purpose}-(\d+)", which):
            if int(found[1]) not in state.sequences(purpose):
                known = ", ".join(f"{purpose}-{number}" for number in state.sequences(purpose))
                raise StateError(f"there is no version '{which}'; there are: {known or 'none'}", folder=place)
            return state.chain(purpose, int(found[1]))
    raise StateError(f"a version is named best, last or like resume-12, received '{which}'", folder=place)


def has_best(folder: Path | Folder) -> bool:
    """Whether a best version was ever kept."""
    return StateFolder(folder).pinned(BEST) is not None

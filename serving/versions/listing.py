"""Which versions a folder has."""

from __future__ import annotations

from embtables.errors import StateError
from embtables.serving.refusals import Refusal
from embtables.state.folder.version_folder import StateFolder
from embtables.state.format.manifest import Manifest
from embtables.state.read.saved_version import list_versions


class Listing:
    """The versions of a folder when it was looked at last. One thread looks, any reads.

    Attributes:
        names: checkpoints of training, then versions for servers, each from old to new.
        newest: the last of them; None if there is none.
    """

    def __init__(self, state: StateFolder) -> None:
        self._state = state
        self.names: list[str] = []
        self.newest: str | None = None

    def look(self) -> None:
        """Looks. Raises StateError if the folder cannot be read."""
        self.names = list_versions(self._state)
        self.newest = self.names[-1] if self.names else None


def version_before(state: StateFolder, current: Manifest) -> str:
    """The version before one, of the same purpose and with another content.

    Raises:
        Refusal: 404: there is none; the ones there are are listed.
    """
    same, number = {current.folder, current.same_as}, current.sequence
    numbers = state.sequences(current.purpose)
    for number in reversed([n for n in numbers if n < current.sequence]):
        try:
            found = state.manifest(current.purpose, number)
        except StateError:
            continue
        if found.folder not in same:
            return found.name
        same.add(found.same_as)
    known = ", ".join(f"{current.purpose}-{n}" for n in numbers)
    raise Refusal(404, f"there is no version before {current.name}; there are: {known or 'none'}", "version")

"""Versions as users name them: a folder opened, its versions listed, one of them picked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from embtables.errors import ConfigError, StateError
from embtables.state.folder.version_folder import MANIFESTS, StateFolder
from embtables.state.format.manifest import PURPOSES, Manifest


@dataclass(frozen=True, slots=True)
class SavedVersion:
    """A version in a folder, with the versions it depends on.

    Attributes:
        folder: the folder that holds it.
        chain: a snapshot and the deltas after it, of which the last is the version itself.
    """

    folder: StateFolder
    chain: tuple[Manifest, ...]

    @property
    def manifest(self) -> Manifest:
        """What the version says of itself."""
        return self.chain[-1]

    @property
    def name(self) -> str:
        """`resume-12`."""
        return self.manifest.name

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of its tables, sorted."""
        return tuple(sorted(self.manifest.tables))


def open_folder(path: str | Path) -> StateFolder:
    """The versions in a folder: a state folder, or that of a training run, which has one in its `checkpoints/`.

    Raises:
        ConfigError: it is neither.
    """
    for candidate in (Path(path) / "checkpoints", Path(path)):
        if (candidate / MANIFESTS).is_dir():
            return StateFolder(candidate)
    raise ConfigError(f"has no versions: there is no {MANIFESTS}/ in it or in its checkpoints/", folder=path)


def list_versions(folder: StateFolder) -> list[str]:
    """Names of all versions: those of `resume`, then those of `serving`, from old to new.

    Raises:
        StateError: the folder cannot be read.
    """
    return [f"{purpose}-{number}" for purpose in PURPOSES for number in folder.sequences(purpose)]


def find_version(folder: StateFolder, name: str | None = None) -> SavedVersion:
    """A version by name.

    Args:
        name: `resume-12`, or a pin such as `best`; by default the newest of `resume`, or of `serving` where there is
            none.

    Raises:
        ConfigError: it is not the name of a version.
        StateError: there is no such version, or it is damaged.
    """
    found = _manifest(folder, name)
    return SavedVersion(folder, tuple(folder.chain(found.purpose, found.sequence)))


def _manifest(folder: StateFolder, name: str | None) -> Manifest:
    if name is None:
        newest = folder.latest("resume") or folder.latest("serving")
        if newest is None:
            raise StateError("there is no version", folder=folder.folder.root)
        return newest
    pinned = folder.pinned(name) if name in folder.pins() else None
    if pinned is not None:
        return folder.manifest(*pinned)
    purpose, _, number = name.rpartition("-")
    if purpose not in PURPOSES or not number.isdecimal():
        known = ", ".join(["resume-<n>", "serving-<n>", *folder.pins()])
        raise ConfigError(f"'{name}' is not a version: give {known}")
    return folder.manifest("resume" if purpose == "resume" else "serving", int(number))

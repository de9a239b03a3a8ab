"""`Follower`: a reader that keeps up with the versions of one purpose, without torch and without a lease.

    newest chain of the folder -> what of it the reader does not have -> read and verified one by one -> given in order

It polls: a folder shared over a network, or an object store, reports no events. What it gives is either a snapshot,
which replaces all that the reader holds, or a delta to what it gave before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, overload

from embtables.errors import ConfigError, StateError
from embtables.given import as_choice, need, shown
from embtables.state.folder.version_folder import StateFolder
from embtables.state.format.manifest import PURPOSES, Manifest, Purpose

T = TypeVar("T")
_STARTS = 8  # of a new chain within one poll, because the one being read was removed


@dataclass(frozen=True, slots=True)
class Followed(Generic[T]):
    """A version that a follower gives.

    Attributes:
        manifest: what the version consists of, and what its writer needs again (`manifest.content`).
        content: what the follower's `read` made of its files.
        position: the position of a reader that has taken over this version; JSON.
    """

    manifest: Manifest
    content: T
    position: dict[str, Any]

    @property
    def is_snapshot(self) -> bool:
        """Whether it replaces all that the reader holds; else it is a delta to the version given before."""
        return self.manifest.parent is None


@dataclass(frozen=True, slots=True)
class _Missing:
    """Versions that a reader has to take over, in order. `instead_of`: the number of a snapshot with the same content
    that it need not read, because of the deltas before it.
    """

    versions: list[Manifest]
    instead_of: int = 0

    def takes_the_place_of(self, version: Manifest) -> bool:
        """Whether this version is one of those deltas."""
        return version.sequence < self.instead_of


class Follower(Generic[T]):
    """Follows the versions of one purpose in a folder.

    A warm standby, whose tables are those of the trainer after each version:

        standby = Tables(configs, features, seed=seed)
        follower = Follower(state, "resume", read=lambda s, m: read_version(s, m, standby.stored).tables)
        while follower.wait(60.0):
            for version in follower.poll():
                if version.is_snapshot:
                    standby.load([version.content])
                else:
                    for table, content in version.content.items():
                        standby.take_over(table, content)

    A server with an index of its own follows `serving` the same way: it drops all rows if `is_snapshot`, then
    removes `content.tombstones` and sets the rows of `content.keys`, in this order; a version that comes again changes
    nothing. A weight is `content.scale` of the newest version times what is there, of rows of earlier versions too.

    Args:
        state: the folder; it may be created later.
        purpose: `resume` or `serving`.
        position: the `Followed.position` of the last version that was taken over, to go on after it; None to begin with
            a snapshot.
        read: called with the folder and a version's manifest; returns what `poll` gives as content. It reads and
            verifies files and must not take anything over: files may be removed meanwhile, and then it is called for
            another version. By default every file is verified and the content is None.
        poll_seconds: how often `wait` looks into the folder.

    Raises:
        ConfigError: an argument is of another kind.
        StateError: the position is not one of a follower of this purpose.

    Example:
        >>> import embtables
        >>> run = embtables.train("my.yaml", runs_dir="runs", max_steps=2, shown=False)
        >>> state = embtables.StateFolder(run.path / "checkpoints")
        >>> follower = embtables.Follower(state, "resume")
        >>> [version.is_snapshot for version in follower.poll()][0]  # a follower begins with a snapshot
        True
    """

    @overload
    def __init__(
        self: Follower[None],
        state: StateFolder,
        purpose: Purpose,
        position: Mapping[str, Any] | None = None,
        *,
        poll_seconds: float = ...,
    ) -> None: ...
    @overload
    def __init__(
        self,
        state: StateFolder,
        purpose: Purpose,
        position: Mapping[str, Any] | None = None,
        *,
        read: Callable[[StateFolder, Manifest], T],
        poll_seconds: float = ...,
    ) -> None: ...
    def __init__(
        self,
        state: StateFolder,
        purpose: Purpose,
        position: Mapping[str, Any] | None = None,
        *,
        read: Callable[[StateFolder, Manifest], Any] = StateFolder.verify,
        poll_seconds: float = 0.25,
    ) -> None:
        need(state, StateFolder, "state", "a StateFolder")
        as_choice(purpose, PURPOSES, "purpose")
        if not callable(read):
            raise ConfigError(f"must be a function, received {shown(read)}", argument="read")
        is_time = isinstance(poll_seconds, float | int) and not isinstance(poll_seconds, bool)
        if not is_time or not 0.0 <= poll_seconds < float("inf"):
            raise ConfigError(f"must be seconds from 0 on, received {shown(poll_seconds)}", argument="poll_seconds")
        self._state = state
        self._purpose: Purpose = purpose
        self._read = read
        self._poll_seconds = poll_seconds
        # The folder's name says which version it is: a number may be given again after its manifest was removed.
        self._has = None if position is None else _folder_of(position, purpose)
        self._refused: tuple[int, str | None] | None = None

    @property
    def folder(self) -> str | None:
        """The folder of the version that the reader holds (`Manifest.folder`); None of a reader that holds none.

        Of several with the same content (`Manifest.same_as`) it is that of the newest one that `poll` has seen.
        """
        return self._has

    def poll(self) -> Iterator[Followed[T]]:
        """The versions that are new now, in order: perhaps a snapshot, then deltas; none if there is nothing new.

        The reader counts as having taken a version over when it asks for the next one. After an error or a `break` in
        between, the next call gives that version again.

        Raises:
            StateError: a version is damaged (its file is named), or a manifest of its chain is missing. Versions before
                it were given. It is raised once for each new version that depends on what is damaged; the follower goes
                on with the next snapshot.
        """
        takes_deltas = True
        for _ in range(_STARTS):
            newest = self._newest()
            if newest is None or newest == self._refused:
                return
            reading: Manifest | None = None
            missing = _Missing([])
            try:
                missing = self._missing(newest[0], takes_deltas=takes_deltas)
                for reading in missing.versions:
                    content = self._read(self._state, reading)
                    yield Followed(reading, content, _position(reading))
                    self._has = reading.folder
            except StateError:
                if reading is not None and missing.takes_the_place_of(reading):
                    takes_deltas = False  # the snapshot holds what they say, too
                elif self._is_there(newest[0] if reading is None else reading.sequence):
                    self._refused = newest
                    raise
            else:
                return
        raise StateError(
            f"{self._purpose} versions are removed faster than they are read: have the writer keep more of them",
            folder=self._state.folder.root,
        )

    def wait(self, seconds: float) -> bool:
        """Waits at most `seconds` until `poll` has something to give or to raise; returns whether it has.

        Raises:
            StateError: the folder cannot be read.
        """
        end = time.monotonic() + seconds
        while not self._is_news():
            left = end - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(left, self._poll_seconds))
        return True

    def _is_news(self) -> bool:
        newest = self._newest()
        if newest is None or newest == self._refused:
            return False
        try:
            return bool(self._missing(newest[0]).versions)
        except StateError:
            return True  # for `poll` to raise, or to find removed

    def _newest(self) -> tuple[int, str | None] | None:
        """The newest version's number and folder, None if its manifest cannot be read; None if there is none."""
        numbers = self._state.sequences(self._purpose)
        if not numbers:
            return None
        try:
            return numbers[-1], self._state.manifest(self._purpose, numbers[-1]).folder
        except StateError:
            return numbers[-1], None

    def _missing(self, newest: int, *, takes_deltas: bool = True) -> _Missing:
        """What leads from the reader's version to this one.

        Args:
            takes_deltas: deltas in the place of a snapshot with the same content, if they are less to read.
        """
        chain = self._state.chain(self._purpose, newest)
        if self._has is None:
            return _Missing(chain)
        if chain[0].same_as == self._has:
            self._has = chain[0].folder  # the reader has it already
        for place, manifest in enumerate(chain):
            if manifest.folder == self._has:
                return _Missing(chain[place + 1 :])
        deltas = self._deltas_to(chain[0]) if takes_deltas else []
        return _Missing([*deltas, *chain[1:]], chain[0].sequence) if deltas else _Missing(chain)

    def _deltas_to(self, snapshot: Manifest) -> list[Manifest]:
        """Deltas to what the reader has that lead to what a snapshot holds; none if they are not less to read."""
        deltas: list[Manifest] = []
        allowed = _rows(snapshot)
        while snapshot.same_as is not None:
            try:
                # What a snapshot is the same as is the version before it.
                before = self._state.chain(self._purpose, snapshot.sequence - 1)
            except StateError:
                return []
            folders: list[str | None] = [manifest.folder for manifest in before]
            has_it = self._has in folders
            deltas = before[folders.index(self._has) + 1 if has_it else 1 :] + deltas
            if folders[-1] != snapshot.same_as or sum(map(_rows, deltas)) >= allowed:
                return []
            if has_it:
                return deltas
            snapshot = before[0]
        return []

    def _is_there(self, sequence: int) -> bool:
        """Whether a version was not removed meanwhile. Manifests go before files, later ones before those they need."""
        return sequence in self._state.sequences(self._purpose)


def _rows(manifest: Manifest) -> int:
    return sum(file.rows or 0 for file in manifest.files.values())


def _position(manifest: Manifest) -> dict[str, Any]:
    return {"purpose": manifest.purpose, "sequence": manifest.sequence, "folder": manifest.folder}


def _folder_of(position: object, purpose: Purpose) -> str:
    """The folder that a position names. Raises StateError if it is not a position of this purpose."""
    known = f"give the position that a follower of {purpose} returned, or None"
    if purpose not in PURPOSES or not isinstance(position, Mapping) or position.get("purpose") != purpose:
        raise StateError(f"a position must be of {purpose}, received {str(position)[:200]}; {known}")
    folder = position.get("folder")
    if not isinstance(folder, str):
        raise StateError(f"a position must name a folder, received {str(position)[:200]}; {known}")
    return folder

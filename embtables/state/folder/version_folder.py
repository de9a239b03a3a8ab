"""`StateFolder`: the versions in a folder; `LeaseHolder`: the process that may change them. See docs/format.md.

    write:  data files, each synced -> their folder synced -> manifest created under its final name, synced = committed
    read:   manifest (checksummed) -> chain down to its snapshot -> files (sizes and checksums) -> content

A version exists if its manifest does. Files that no manifest names are garbage, which only the lease's holder removes.
"""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from types import TracebackType
from typing import Any

from embtables.errors import StateError
from embtables.given import as_path, need
from embtables.keyspace import NUM_BUCKETS
from embtables.state.folder.lease import Lease
from embtables.state.folder.local_folder import LocalFolder
from embtables.state.folder.protocol import TEMPORARY, Folder
from embtables.state.format import manifest as manifests
from embtables.state.format import small_files
from embtables.state.format.checksums import BLOCK, Buffer, Digests
from embtables.state.format.manifest import PURPOSES, Manifest, Purpose
from embtables.state.format.projection import Projection

MANIFESTS, VERSIONS, PINS = "manifests", "versions", "pins"
_NAME = re.compile(r"(resume|serving)-(\d{10})\.json")


@dataclass
class NewFile:
    """A file to be written: its bytes in pieces, and what the manifest says of it."""

    chunks: Iterable[Buffer]
    rows: int | None = None
    buckets: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class VersionKind:
    """What kind of version is written.

    Attributes:
        purpose: of its chain.
        parent: the number of the version to which it is a delta; None of a snapshot.
        projection: what it holds of its tables; the same as its parent.
        same_as: of a compacted chain, the folder of the version whose content the new one has.
    """

    purpose: Purpose
    parent: int | None = None
    projection: Projection = "full"
    same_as: str | None = None


@dataclass(frozen=True, slots=True)
class Draft:
    """A version that is being written: it has a number and a folder, and does not exist before its manifest."""

    kind: VersionKind
    sequence: int
    folder: str

    @property
    def manifest(self) -> str:
        """The name that its manifest will have within the state folder."""
        return f"{MANIFESTS}/{manifests.file_name(self.kind.purpose, self.sequence)}"


def write_files(folder: Folder, draft: Draft, files: Mapping[str, NewFile]) -> dict[str, dict[str, Any]]:
    """Writes files to a version's folder, durably. Returns what the manifest says of them. Raises OSError."""
    place = f"{VERSIONS}/{draft.folder}"
    found: dict[str, dict[str, Any]] = {}
    for name, new in files.items():
        written = folder.write(f"{place}/{name}", new.chunks)
        buckets = None if new.buckets is None else list(new.buckets)
        found[name] = {"bytes": written.bytes, "xxh3": written.xxh3, "rows": new.rows, "buckets": buckets}
        found[name] |= {"blocks": list(written.blocks)} if written.blocks else {}
    folder.sync(place)
    return found


def unwritten(draft: Draft, error: OSError, root: PurePath) -> StateError:
    """The error that reports a version which could not be written."""
    reason = error.strerror or str(error)
    version = f"{draft.kind.purpose}-{draft.sequence}"
    return StateError(f"cannot write version {version}: {reason}; earlier versions are intact", folder=root)


class StateFolder:
    """The versions in a folder. Reading needs no lease.

    Example:
        >>> import embtables
        >>> run = embtables.train("my.yaml", runs_dir="runs", max_steps=2, shown=False)
        >>> state = embtables.StateFolder(run.path / "checkpoints")
        >>> newest = state.latest("resume")
        >>> newest.name, len(state.chain("resume", newest.sequence)) >= 1
        ('resume-2', True)
        >>> state.verify(newest)  # raises StateError if a byte differs

    Args:
        place: a path on a local disk, or a folder of another kind.

    Raises:
        ConfigError: it is neither.
    """

    def __init__(self, place: Path | str | Folder) -> None:
        is_folder = hasattr(place, "names") and hasattr(place, "root")
        self.folder: Folder = place if is_folder else LocalFolder(as_path(place, "place"))  # type: ignore[assignment]

    def sequences(self, purpose: Purpose) -> list[int]:
        """Numbers of the versions there are, ascending. Raises StateError if the folder cannot be read."""
        found = (_NAME.fullmatch(name) for name in self._names(MANIFESTS))
        return sorted(int(m[2]) for m in found if m is not None and m[1] == purpose)

    def _names(self, place: str) -> list[str]:
        try:
            return self.folder.names(place)
        except OSError as error:
            raise StateError(f"cannot be read: {error.strerror}", folder=self.folder.path(place)) from error

    def manifest(self, purpose: Purpose, sequence: int) -> Manifest:
        """The manifest of a version. Raises StateError if there is none, or it is damaged."""
        name = f"{MANIFESTS}/{manifests.file_name(purpose, sequence)}"
        path = self.folder.path(name)
        try:
            found = manifests.decode(self.folder.read(name, manifests.MAX_BYTES), path)
        except FileNotFoundError:
            raise StateError(f"there is no version {purpose}-{sequence}", folder=self.folder.root) from None
        except OSError as error:
            raise StateError(f"cannot be read: {error.strerror}", file=path) from error
        if (found.purpose, found.sequence) != (purpose, sequence):
            raise StateError(f"is the manifest of {found.name}, under another name", file=path)
        return found

    def latest(self, purpose: Purpose) -> Manifest | None:
        """The newest version; None if there is none."""
        numbers = self.sequences(purpose)
        return self.manifest(purpose, numbers[-1]) if numbers else None

    def chain(self, purpose: Purpose, sequence: int) -> list[Manifest]:
        """A version's snapshot, then the deltas that lead to it.

        Raises:
            StateError: one is missing or damaged, or a writer that had lost its lease wrote one.
        """
        chain = [self.manifest(purpose, sequence)]
        while chain[-1].parent is not None:
            chain.append(self.manifest(purpose, chain[-1].parent))
            if chain[-1].writer > chain[-2].writer:
                raise StateError(f"{chain[-2].name} was written under a lost lease", folder=self.folder.root)
            if chain[-1].projection != chain[-2].projection:
                held = f"holds {chain[-2].projection}, its parent {chain[-1].projection}"
                reason = f"{chain[-2].name} {held}: versions of one chain must have the same projection"
                raise StateError(reason, folder=self.folder.root)
        return chain[::-1]

    def verify(self, version: Manifest) -> None:
        """Reads every file of a version. Raises StateError naming the first that is not as it was written."""
        for name in version.files:
            self.verify_file(version, name)

    def verify_file(self, version: Manifest, name: str) -> None:
        """Reads a file of a version. Raises StateError if it is missing or not as it was written."""
        self.check_size(version, name)
        path, file = self.file(version, name), version.files[name]
        try:
            found = self._digests(path, file.bytes).written()
        except OSError as error:
            raise StateError(f"cannot be read: {error.strerror}", file=self.folder.path(path)) from error
        if (found.xxh3, list(found.blocks)) != (file.xxh3, file.blocks):
            raise StateError("is damaged: its checksum is not the one recorded", file=self.folder.path(path))

    def _digests(self, path: str, size: int) -> Digests:
        """The first bytes of a file, fewer if it is shorter. Raises OSError."""
        digests, memory = Digests(), memoryview(bytearray(min(size, 4 * BLOCK)))
        while digests.size < size:
            view = memory[: size - digests.size]
            got = self.folder.read_into(path, digests.size, view)
            digests.update(view[:got])
            if got < len(view):
                break
        return digests

    def check_size(self, version: Manifest, name: str) -> None:
        """Raises StateError if a file is missing or not as long as its manifest says."""
        path = self.file(version, name)
        try:
            size = self.folder.size(path)
        except OSError as error:
            raise StateError(
                f"of version {version.name} cannot be read: {error.strerror}", file=self.folder.path(path)
            ) from error
        if size != version.files[name].bytes:
            raise StateError(
                f"is damaged: it has {size:,} bytes, not the {version.files[name].bytes:,} recorded",
                file=self.folder.path(path),
            )

    def file(self, version: Manifest, name: str) -> str:
        """The name of a version's file within the state folder."""
        return f"{VERSIONS}/{version.folder}/{name}"

    def pinned(self, pin: str) -> tuple[Purpose, int] | None:
        """The version that a pin keeps; None if it was never set. Raises StateError if it is damaged."""
        name = f"{PINS}/{pin}.json"
        file = self.folder.path(name)
        try:
            found = small_files.decode(self.folder.read(name, small_files.MAX_BYTES), small_files.Pin, file)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StateError(f"cannot be read: {error.strerror}", file=file) from error
        return found.purpose, found.sequence

    def pins(self) -> list[str]:
        """Names of the pins. Raises StateError if the folder cannot be read."""
        names = (name for name in self._names(PINS) if not name.startswith(TEMPORARY))
        return [name.removesuffix(".json") for name in names if name.endswith(".json")]

    def last_lease_number(self) -> int:
        """The highest lease number that a version records; 0 if there are none. Passes over damaged ones."""
        found = 0
        for purpose in PURPOSES:
            for sequence in reversed(self.sequences(purpose)):
                try:
                    found = max(found, self.manifest(purpose, sequence).writer)
                except StateError:
                    continue
                break
        return found


class LeaseHolder:
    """The holder of a state folder's lease: `with LeaseHolder(state) as holder`. A process that dies loses it.

    It alone adds versions, pins them and removes them; `VersionWriter` writes those of tables through it. Versions of
    several purposes may be written at once, each on a thread of its own.

    Raises:
        StateError: another process holds the lease (it is named), or the folder cannot be written.

    Example:
        >>> import embtables
        >>> run = embtables.train("my.yaml", runs_dir="runs", max_steps=2, shown=False)
        >>> state = embtables.StateFolder(run.path / "checkpoints")
        >>> with embtables.LeaseHolder(state) as holder:
        ...     holder.pin("first_week", state.latest("resume"))  # it stays, whatever follows
        >>> state.pinned("first_week")
        ('resume', 2)
    """

    def __init__(self, state: StateFolder) -> None:
        need(state, StateFolder, "state", "a StateFolder")
        self.state = state
        self._folder = state.folder
        self._lease = Lease(self._folder)
        self._failed: set[str] = set()  # manifests that were written, but perhaps not durably
        self._drafts: set[str] = set()  # folders of versions that are being written
        self._turn = threading.RLock()  # of threads that change which versions there are

    @property
    def lease_number(self) -> int:
        """Which holder of the lease this is, counted over all there ever were (a fencing token)."""
        return self._lease.number

    def __enter__(self) -> LeaseHolder:
        try:
            for name in (MANIFESTS, VERSIONS, PINS):
                self._folder.make(name)
            self._lease.take(self.state.last_lease_number)
        except OSError as error:
            raise StateError(f"cannot be written: {error.strerror}", folder=self._folder.root) from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Gives the lease back."""
        self._lease.give_back()

    def begin(self, kind: VersionKind) -> Draft:
        """Makes the folder of the next version. The caller writes its files there, then calls `finish` or `abandon`.

        Raises:
            StateError: the folder cannot be made, the lease was lost, or the parent is not the chain's newest version.
        """
        purpose, parent = kind.purpose, kind.parent
        with self._turn:
            self._lease.check()
            self._remove_failed()
            numbers = self.state.sequences(purpose)
            sequence = numbers[-1] + 1 if numbers else 1
            if parent is not None and parent != sequence - 1:
                raise StateError(f"the newest version is {purpose}-{sequence - 1}, not the parent {parent}")
            draft = Draft(kind, sequence, f"{purpose}-{sequence:010d}-{secrets.token_hex(4)}")
            self._drafts.add(draft.folder)
        try:
            self._folder.make(f"{VERSIONS}/{draft.folder}")
        except OSError as error:
            self.abandon(draft)
            raise unwritten(draft, error, self._folder.root) from error
        return draft

    def abandon(self, draft: Draft) -> None:
        """Removes what there is of a version that is not finished, as far as the disk lets it; the rest is garbage."""
        try:
            self._folder.remove_tree(f"{VERSIONS}/{draft.folder}")
        except OSError:
            return
        finally:
            self._drafts.discard(draft.folder)

    def finish(
        self,
        draft: Draft,
        files: Mapping[str, Mapping[str, Any]],
        tables: Mapping[str, Mapping[str, Any]],
        content: Mapping[str, Any],
        written: str,
    ) -> Manifest:
        """Makes the files in a draft's folder a version, durably.

        Args:
            files: as `write_files` describes them.

        Raises:
            StateError: the disk is full or failing, the lease was lost, or the manifest would not be readable.
        """
        fields: dict[str, Any] = {
            "format": manifests.FORMAT,
            "purpose": draft.kind.purpose,
            "sequence": draft.sequence,
            "parent": draft.kind.parent,
            "writer": self.lease_number,
            "written": written,
            "folder": draft.folder,
            "buckets": NUM_BUCKETS,
            "files": files,
            "tables": tables,
            "schema_hash": manifests.hash_of(content.get("schema")),
            "content": content,
        }
        # Fields without content are left out: the manifest is then like one of the builds before them.
        fields |= {"projection": draft.kind.projection} if draft.kind.projection != "full" else {}
        fields |= {"same_as": draft.kind.same_as} if draft.kind.same_as is not None else {}
        raw = manifests.encode(fields)
        with self._turn:
            try:
                manifest = manifests.decode(raw, self._folder.path(draft.manifest))
                self._lease.check()
                self._folder.create(draft.manifest, raw)
            except OSError as error:
                self._forget(draft)
                raise unwritten(draft, error, self._folder.root) from error
            finally:
                self._drafts.discard(draft.folder)
        return manifest

    def _forget(self, draft: Draft) -> None:
        """Removes what a failed commit left, as far as the disk lets it, the manifest first; the rest is garbage."""
        self._failed.add(draft.manifest)
        try:
            self._folder.remove(draft.manifest)
            self._folder.sync(MANIFESTS)
            self._folder.remove_tree(f"{VERSIONS}/{draft.folder}")
            self._failed.discard(draft.manifest)
        except OSError:
            return

    def _remove_failed(self) -> None:
        try:
            for manifest in sorted(self._failed):
                self._folder.remove(manifest)
                self._folder.sync(MANIFESTS)
                self._failed.discard(manifest)
        except OSError as error:
            raise StateError(f"still fails: {error.strerror}", folder=self._folder.root) from error

    def pin(self, pin: str, version: Manifest) -> None:
        """Keeps a version and its chain until the pin moves on. Raises StateError if the pin cannot be written."""
        if pin.startswith(TEMPORARY):
            raise StateError(f"'{pin}' cannot be a pin: temporary files have such names", folder=self._folder.root)
        try:
            content = small_files.encode(small_files.Pin(purpose=version.purpose, sequence=version.sequence))
            self._folder.replace(f"{PINS}/{pin}.json", content)
        except OSError as error:
            raise StateError(f"cannot pin {version.name}: {error.strerror}", folder=self._folder.root) from error

    def collect(self, keep: Mapping[Purpose, int]) -> int:
        """Removes all but the last `keep` versions of each purpose, pinned ones and what both depend on; then garbage.

        Purposes that are not named keep all versions. Returns how many bytes of files were removed.

        Raises:
            StateError: the lease was lost, what is kept is damaged, or a file cannot be removed. What was removed
                before that stays removed.
        """
        with self._turn:
            try:
                return self._collect(keep)
            except OSError as error:
                reason = f"what is no longer needed cannot be removed: {error.strerror or error}"
                where = {"folder": self._folder.root} if error.filename is None else {"file": error.filename}
                raise StateError(reason, **where) from error

    def _collect(self, keep: Mapping[Purpose, int]) -> int:
        self._lease.check()
        kept = self._kept(keep)
        # A delta is removed before what it depends on, so that a crash in between leaves no version without its chain.
        for purpose in PURPOSES:
            for sequence in reversed(self.state.sequences(purpose)):
                if (purpose, sequence) not in kept:
                    self._folder.remove(f"{MANIFESTS}/{manifests.file_name(purpose, sequence)}")
        self._folder.sync(MANIFESTS)
        return self._remove_garbage({version.folder for version in kept.values()})

    def _kept(self, keep: Mapping[Purpose, int]) -> dict[tuple[Purpose, int], Manifest]:
        wanted = {pinned for pin in self.state.pins() if (pinned := self.state.pinned(pin)) is not None}
        for purpose in PURPOSES:
            numbers = self.state.sequences(purpose)
            wanted |= {(purpose, n) for n in (numbers[-keep[purpose] :] if purpose in keep else numbers)}
        return {(m.purpose, m.sequence): m for version in sorted(wanted) for m in self.state.chain(*version)}

    def _remove_garbage(self, folders: set[str]) -> int:
        freed = 0
        for folder in self._folder.names(VERSIONS):
            if folder not in folders and folder not in self._drafts:
                name = f"{VERSIONS}/{folder}"
                freed += sum(self._folder.size(f"{name}/{file}") for file in self._folder.names(name))
                self._folder.remove_tree(name)
        for place in (MANIFESTS, PINS):
            for file in self._folder.names(place):
                if file.startswith(TEMPORARY):
                    self._folder.remove(f"{place}/{file}")
        return freed

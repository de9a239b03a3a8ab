"""`CatchUp`: from what a server answers with to the newest whole version of a folder.

Follower -> read (verified, judged, scorer made, prepared) -> rows applied -> Live.put
what cannot be taken -> set aside; the server stays where it is, and tries again
nothing to answer with yet -> the newest whole version: an older one, or a run's checkpoint
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from embtables.errors import EmbtablesError, StateError
from embtables.models.version_content import scoring_content
from embtables.serving.versions.checks import BadValuesError, ValueLimits
from embtables.serving.versions.live import Live
from embtables.serving.versions.load import Delta, Loaded, load, load_snapshot, read_delta
from embtables.serving.versions.schemas import OtherSchemaError, need_same_requests
from embtables.serving.versions.served_version import ServedVersion
from embtables.serving.versions.set_aside import Kind, SetAside
from embtables.state.folder.version_folder import MANIFESTS, StateFolder
from embtables.state.format.manifest import MAX_BYTES, Manifest, Purpose, file_name
from embtables.state.read.find import find
from embtables.state.read.follower import Follower

_FIRST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS = 5.0, 600.0


class CatchUp:
    """Brings `live` to the newest whole version. All of it runs on one thread, the only one that writes.

    Args:
        state: the folder.
        live: where versions are put.
        set_aside: takes what could not be taken.
        limits: what values a version may hold.
        go_on: called between pieces of what is read; what it raises ends the catching up, which may be begun again.

    Attributes:
        loaded: what answers, and what the next delta is applied to.
        applied_versions, applied_rows, applied_tombstones: since the server began.
    """

    def __init__(
        self,
        state: StateFolder,
        live: Live,
        set_aside: SetAside,
        limits: ValueLimits,
        go_on: Callable[[], None],
    ) -> None:
        self._state = state
        self._live = live
        self._set_aside = set_aside
        self._limits = limits
        self._go_on = go_on
        self.loaded: Loaded | None = None
        self._next: Loaded | None = None  # fresh tables that do not answer yet
        self._reading: Manifest | None = None
        self._retry_at, self._retry_seconds = float("inf"), _FIRST_RETRY_SECONDS
        self._tried: tuple[list[int], list[int]] | None = None  # versions among which none could be taken
        self._settled: tuple[list[int], bytes] | None = None  # what there was when nothing more was to be taken
        self._wants_checkpoint = False
        self.applied_versions = self.applied_rows = self.applied_tombstones = 0
        self._follower = self._follow_from(None)

    def _follow_from(self, manifest: Manifest | None) -> Follower[Loaded | Delta]:
        position = None
        if manifest is not None and manifest.purpose == "serving":
            position = {"purpose": "serving", "sequence": manifest.sequence, "folder": manifest.folder}
        return Follower(self._state, "serving", position, read=self._read)

    def _read(self, state: StateFolder, manifest: Manifest) -> Loaded | Delta:
        """What a version takes to answer; nothing is applied yet. Raises StateError."""
        self._go_on()
        self._reading = manifest
        if manifest.parent is None:
            if self.loaded is not None:
                need_same_requests(self.loaded.served.content, scoring_content(manifest), manifest)
            return load_snapshot(state, manifest, self._limits, self._go_on, self.loaded)
        base = self._next or self.loaded
        if base is None:
            raise StateError("is a delta to a version that is not there", version=manifest.name)
        delta = read_delta(state, base, manifest)
        if self._next is None:
            self._prepared(delta.served)
        return delta

    def _prepared(self, served: ServedVersion) -> None:
        try:
            self._live.prepare(served)
        except StateError:
            raise
        except EmbtablesError as error:
            raise StateError(error.message, version=served.name, **error.path) from error

    def run(self) -> None:
        """Takes all that is new; returns when there is nothing more, or it cannot be taken.

        Raises:
            StateError: the folder cannot be read.
        """
        if time.monotonic() >= self._retry_at:
            self._retry_at, self._tried, self._settled = float("inf"), None, None
            self._begin_again()
        self._next = self._reading = None
        mark = self._mark()
        if mark is not None and mark == self._settled:
            return
        there = self._state.sequences("serving"), self._state.sequences("resume")
        if there == self._tried:
            return
        try:
            for followed in self._follower.poll():
                self._take(followed.content)
        except StateError as error:
            self._reject("serving", error)
            if self.loaded is None and self._live.current is not None:  # a version is applied in part
                self._begin_again()
                self._tried = there
        except BaseException:
            self._begin_again()
            raise
        if self._next is not None and not self._switch(self._next):
            self._begin_again()
            self._tried = there
        if self._live.current is None:
            self._fall_back()
        if self._live.current is None or self._wants_checkpoint:
            self._serve_checkpoint()
        if self._live.current is None:
            self._tried = there
        self._rename()
        self._settled = None if self._live.current is None else mark

    def _mark(self) -> tuple[list[int], bytes] | None:
        """Which versions there are, and the newest manifest: a quiet turn reads no more than that."""
        numbers = self._state.sequences("serving")
        try:
            name = f"{MANIFESTS}/{file_name('serving', numbers[-1])}"
            return numbers, self._state.folder.read(name, MAX_BYTES)
        except (IndexError, OSError, StateError):
            return None

    def _begin_again(self) -> None:
        """Follows from what answers, or from nothing."""
        self._follower = self._follow_from(None if self.loaded is None else self.loaded.manifest)

    def _take(self, found: Loaded | Delta) -> None:
        if isinstance(found, Loaded):
            self._next = found
            self._count(found.num_rows(), 0)
            return
        base = self._next or self.loaded
        assert base is not None
        try:
            base.apply(found)
        except BaseException:
            # Rows of this version may be in the tables. What answers goes on; what follows begins with fresh tables.
            self.loaded = self._next = None
            raise
        self._count(found.rows, found.tombstones)
        if self._next is None:
            self._put(base)

    def _count(self, rows: int, tombstones: int) -> None:
        self.applied_versions += 1
        self.applied_rows += rows
        self.applied_tombstones += tombstones

    def _put(self, loaded: Loaded) -> None:
        self._live.put(loaded.served)
        self._retry_seconds = _FIRST_RETRY_SECONDS

    def _switch(self, loaded: Loaded) -> bool:
        """Answers with fresh tables; returns whether they could be prepared."""
        self._next = None
        try:
            self._prepared(loaded.served)
        except StateError as error:
            self._note(loaded.manifest, error)
            self._retry_later()
            return False
        self.loaded = loaded
        self._put(loaded)
        return True

    def _reject(self, purpose: Purpose, error: StateError) -> None:
        """Notes a version that could not be taken, and when to try again: a disk may have failed for a moment only."""
        manifest = self._reading
        if manifest is None:  # its chain could not be read
            numbers = self._state.sequences(purpose)
            name = f"{purpose}-{numbers[-1]}" if numbers else purpose
            self._set_aside.add(name, "", self._kind(error, purpose), error)
        else:
            self._note(manifest, error)
        self._retry_later()

    def _retry_later(self) -> None:
        self._retry_at = time.monotonic() + self._retry_seconds
        self._retry_seconds = min(2 * self._retry_seconds, _LONGEST_RETRY_SECONDS)

    def _note(self, manifest: Manifest, error: StateError) -> None:
        if manifest.sequence not in self._state.sequences(manifest.purpose):
            return  # its writer removed it while it was read
        self._set_aside.add(manifest.name, manifest.folder, self._kind(error, manifest.purpose), error)

    def _kind(self, error: StateError, purpose: Purpose) -> Kind:
        if isinstance(error, BadValuesError):
            return "values"
        if isinstance(error, OtherSchemaError):
            return "schema"
        if self._reading is None and self._has_gap(purpose):
            return "gap"
        return "damaged" if "file" in error.path else "other"

    def _has_gap(self, purpose: Purpose) -> bool:
        """Whether the newest version depends on one that is not there."""
        numbers = self._state.sequences(purpose)
        try:
            for number in reversed(numbers):
                parent = self._state.manifest(purpose, number).parent
                if parent is None:
                    return False
                if parent not in numbers:
                    return True
        except StateError:
            return False
        return False

    def _fall_back(self) -> None:
        """The newest whole version, where the newest one is not."""
        damaged: set[str] = set()
        for number in reversed(self._state.sequences("serving")):
            self._reading = None
            try:
                chain = self._state.chain("serving", number)
                if chain[0].folder not in damaged and self._switch(self._as_far_as_it_goes(chain)):
                    self._begin_again()
                    return
            except StateError as error:
                if self._reading is not None:
                    damaged.add(self._reading.folder)
                    self._note(self._reading, error)

    def _as_far_as_it_goes(self, chain: list[Manifest]) -> Loaded:
        """The newest version of a chain before one that cannot be taken. Raises StateError if that is its first."""
        self._reading = chain[0]
        loaded = load_snapshot(self._state, chain[0], self._limits, self._go_on)
        for manifest in chain[1:]:
            self._go_on()
            self._reading = manifest
            try:
                loaded.apply(read_delta(self._state, loaded, manifest))
            except StateError as error:
                self._note(manifest, error)
                break
        return loaded

    def _serve_checkpoint(self) -> None:
        """A run without versions for servers: its best checkpoint, or its last. What is for servers is taken later."""
        self._wants_checkpoint, self._reading = False, None
        if not self._state.sequences("resume"):
            return
        try:
            chain = find(self._state.folder)
            self._reading = chain[-1]
            if self.loaded is None or self.loaded.manifest.folder != chain[-1].folder:
                self._switch(load(self._state, chain, self._limits, self._go_on))
        except StateError as error:
            self._reject("resume", error)

    def _rename(self) -> None:
        """Takes the name of a newer version with the same content (`Manifest.same_as`)."""
        loaded, folder = self.loaded, self._follower.folder
        if loaded is None or folder is None or folder == loaded.manifest.folder:
            return
        for number in reversed(self._state.sequences("serving")):
            try:
                manifest = self._state.manifest("serving", number)
            except StateError:
                continue
            if manifest.folder == folder:
                self._put_as(loaded, manifest)
                return

    def _put_as(self, loaded: Loaded, manifest: Manifest) -> None:
        """Answers with what there is under the name of another version that holds the same."""
        served = replace(loaded.served, manifest=manifest)
        self._prepared(served)
        loaded.served = served
        self._put(loaded)

    def pin(self, chain: list[Manifest]) -> None:
        """Answers with the version that a chain leads to, of whatever schema.

        Raises:
            StateError: a version of the chain cannot be taken; what answered before goes on.
        """
        wanted, loaded = chain[-1], self.loaded
        if loaded is None or not _is_same(loaded.manifest, wanted):
            loaded = load(self._state, chain, self._limits, self._go_on)
            self._prepared(loaded.served)
            self._count(loaded.num_rows(), 0)
            self.loaded = loaded
            self._put(loaded)
        elif loaded.manifest.folder != wanted.folder:
            self._put_as(loaded, wanted)
        self._begin_again()

    def unpin(self) -> None:
        """The next `run` goes to the newest version, from whatever answers."""
        self._tried = self._settled = None
        self._wants_checkpoint = not self._state.sequences("serving")


def _is_same(one: Manifest, other: Manifest) -> bool:
    """Whether two versions hold the same."""
    return other.folder in (one.folder, one.same_as) or other.same_as == one.folder

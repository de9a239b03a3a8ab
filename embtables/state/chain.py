"""`Chain`: the versions that one trainer writes of its tables, in the background, each a delta to the one before.

    between two steps: cut drawn -> a delta copied, or a snapshot captured -> training goes on
    one thread: files written, a snapshot's rows read meanwhile, and synced -> manifest -> pins -> garbage removed

A write that fails loses nothing: the next version holds what changed since the last one that was committed.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from embtables.errors import StateError
from embtables.rows import Ability
from embtables.rows.protocol import Capture
from embtables.state.manifest import Buckets, Manifest, Purpose, canonical
from embtables.state.store import StateFolder, Writer
from embtables.state.table_files import ALL_BUCKETS
from embtables.state.versions import Tensors, Version, new_version, read_version
from embtables.tables import Tables


@dataclass(frozen=True, slots=True)
class _Parent:
    """The last committed version, and the cut of the tables that it holds."""

    manifest: Manifest
    cut: int | None
    deltas: int  # since its snapshot


class Chain:
    """One purpose's versions of one set of tables; the writer's lease is held by whoever made it.

    Args:
        keep: newest versions that stay, besides pinned ones.
        longest: deltas in a row before the next snapshot.
    """

    def __init__(self, writer: Writer, purpose: Purpose, tables: Tables, *, keep: int = 2, longest: int = 16) -> None:
        self._writer = writer
        self._purpose: Purpose = purpose
        self._tables = tables
        self._keep = keep
        self._longest = longest
        self._cuts = Ability.CUTS in tables.rows.abilities
        self._parent: _Parent | None = None
        self._pending: tuple[Future[Manifest], int | None, int] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="state")
        self.failures: list[StateError] = []

    def go_on_from(self, manifest: Manifest, deltas: int) -> None:
        """The tables hold this version: the next one is a delta to it."""
        self._parent = _Parent(manifest, self._tables.draw_cut() if self._cuts else None, deltas)

    def cut(self, tensors: Tensors, content: Mapping[str, Any], pins: Sequence[str] = ()) -> None:
        """Takes a version between two steps and has it written. Waits where the one before is still being written.

        What fails on the way to the disk is found in `failures`, or raised by `wait`.

        Args:
            tensors: everything dense; copied.
            content: what is to be read again with the version; JSON-able, copied.
            pins: names that shall keep this version.

        Raises:
            StateError: the content is not JSON; or the tables' gradients wait for their step.
        """
        self._note(self._harvest())
        try:
            canonical(content)
        except (TypeError, ValueError) as error:
            raise StateError(f"the content of a version must be JSON: {error}") from error
        parent = self._parent
        number = self._tables.draw_cut() if self._cuts else None
        changed = None if parent is None or parent.deltas >= self._longest else self._changes(parent)
        deltas = 0 if changed is None or parent is None else parent.deltas + 1
        captured = self._tables.capture() if changed is None else changed
        version = Version({}, {n: v.copy() for n, v in tensors.items()}, copy.deepcopy(dict(content)))
        base = parent.manifest.sequence if changed is not None and parent is not None else None
        self._pending = self._thread.submit(self._write, captured, version, base, tuple(pins)), number, deltas

    def _changes(self, parent: _Parent) -> dict[str, Capture] | None:
        """What changed since the parent; None where only the whole tells it."""
        if parent.cut is None:
            return None
        try:
            return self._tables.capture(parent.cut)
        except StateError:
            return None

    def _write(
        self, captured: Mapping[str, Capture], version: Version, parent: int | None, pins: tuple[str, ...]
    ) -> Manifest:
        try:
            version.tables.update((name, capture.streamed()) for name, capture in captured.items())
            manifest = self._writer.commit(self._purpose, new_version(self._tables.stored, version, parent))
        finally:
            # An error would hold them in its traceback, and the tables would go on saving rows for them.
            for capture in captured.values():
                capture.close()
            version.tables.clear()
        # The version is there: what fails from here on is told and takes nothing of it back.
        try:
            for pin in pins:
                self._writer.pin(pin, manifest)
            self._writer.collect({self._purpose: self._keep})
        except OSError as error:
            reason = f"what is no longer needed cannot be removed: {error.strerror}"
            self.failures.append(StateError(reason, folder=self._writer.state.folder.root))
        except StateError as error:
            self.failures.append(error)
        return manifest

    def _harvest(self) -> StateError | None:
        """What became of the version being written: None where it is there, or there was none."""
        if self._pending is None:
            return None
        written, number, deltas = self._pending
        self._pending = None
        try:
            self._parent = _Parent(written.result(), number, deltas)
        except StateError as error:
            return error
        if number is not None:
            self._tables.forget_changes(number)
        return None

    def _note(self, error: StateError | None) -> None:
        if error is not None:
            self.failures.append(error)

    def wait(self) -> None:
        """Until the last version is on the disk. Raises StateError where it could not be written."""
        error = self._harvest()
        if error is not None:
            raise error

    def close(self) -> None:
        """Waits for what is being written; what fails is found in `failures`."""
        self._note(self._harvest())
        self._thread.shutdown()


def load(state: StateFolder, chain: Sequence[Manifest], tables: Tables, buckets: Buckets = ALL_BUCKETS) -> Version:
    """Makes the tables hold the last version of a chain; returns that one.

    Args:
        buckets: a range [first, end) of the key space: the tables then hold the keys of these buckets alone, as one
            rank of several does. Rows of a fixed table that are of other buckets are left as they are.

    Raises:
        StateError: a file is missing, damaged or of other tables; the tables are then not to be used.
    """
    stored = tables.stored
    last = Version({})

    def versions() -> Any:
        nonlocal last
        for manifest in chain:
            last = read_version(state, manifest, stored, buckets)
            yield last.tables

    tables.load(versions())
    return last

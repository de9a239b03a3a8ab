"""The one way in which a version is written, by the ranks that hold its tables; a process alone is one rank.

    every rank: its files made ready; rank 0: the version's folder made, and named to all
    -> every rank: its files written and synced; their names, sizes and checksums given to all
    -> rank 0: the manifest, when all have succeeded and agree; else the folder is removed

A version that fails at one rank fails at all of them, with the same words. `CommitAcrossRanks` is one rank's side;
`commit` and `write_version` are for a process alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from embtables.errors import StateError, WorldError
from embtables.keyspace import ALL_BUCKETS
from embtables.rows.stored_table import StoredTable
from embtables.state.folder.version_folder import (
    VERSIONS,
    Draft,
    LeaseHolder,
    StateFolder,
    VersionKind,
    unwritten,
    write_files,
)
from embtables.state.format.manifest import Manifest
from embtables.state.format.version import Version
from embtables.state.write.gather_results import gather_results
from embtables.state.write.rank_files import RankFiles, artifact_files, rank_files, table_entries
from embtables.state.write.ranks import RankPart

if TYPE_CHECKING:  # a process alone writes without torch
    from embtables.shard.world import World

Files = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Written:
    """A version whose files are there, by rank as `write_files` describes them; it needs its manifest alone."""

    draft: Draft
    ranks: list[Files]
    tables: dict[str, dict[str, Any]]
    at: str


class CommitAcrossRanks:
    """One rank of those that write to a state folder. All ranks call the same, on the one thread that the world serves.

    Args:
        holder: at rank 0 the lease's holder, elsewhere the same folder.
        world: None if this process is alone.
    """

    def __init__(self, holder: LeaseHolder | StateFolder, world: World | None) -> None:
        self._writer = holder if isinstance(holder, LeaseHolder) else None
        self._state = holder.state if isinstance(holder, LeaseHolder) else holder
        self._world = world

    def write(self, kind: VersionKind, ready: Callable[[], RankFiles]) -> Written:
        """Writes all ranks' files of the next version.

        Args:
            ready: makes this rank's files.

        Raises:
            StateError: it failed at some rank: nothing of the version is left, earlier ones are as they were.
            WorldError: a rank is gone or silent; what it still writes is garbage.
        """
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        own: list[RankFiles] = []
        drafts: list[Draft] = []

        def begin() -> dict[str, Any] | None:
            own.append(ready())
            if self._writer is None:
                return None
            drafts.append(self._writer.begin(kind))
            return {"sequence": drafts[0].sequence, "folder": drafts[0].folder}

        def abandon() -> None:
            if self._writer is not None and drafts:
                self._writer.abandon(drafts[0])

        try:
            begun = gather_results(self._world, begin)[0]
            draft = Draft(kind, **begun)
            ranks = gather_results(self._world, lambda: self._write_own(draft, own[0]))
            return Written(draft, [r["files"] for r in ranks], table_entries([r["tables"] for r in ranks]), at)
        except WorldError:
            abandon()
            raise
        except Exception:
            gather_results(self._world, abandon)
            raise
        finally:
            # An error would hold what they are made of in its traceback.
            for each in own:
                each.files.clear()

    def _write_own(self, draft: Draft, own: RankFiles) -> dict[str, Any]:
        folder = self._state.folder
        if self._writer is None and not folder.exists(f"{VERSIONS}/{draft.folder}"):
            reason = f"does not see {draft.folder}, which rank 0 has made: all need the same shared folder"
            raise StateError(reason, folder=folder.root)
        try:
            # The files first: what rounding did to weights is known when they are written.
            return {"files": write_files(folder, draft, own.files), "tables": own.described()}
        except OSError as error:
            raise unwritten(draft, error, folder.root) from error

    def finish(
        self, written: Written, content: Mapping[str, Any], after: Callable[[Manifest], list[StateError]]
    ) -> tuple[int, list[StateError]]:
        """Makes the version exist.

        Args:
            content: rank 0's; see Version.
            after: what rank 0 does then; returns what of it failed.

        Returns:
            Its number, and what failed afterwards.

        Raises:
            StateError, WorldError: as `write`.
        """

        failed: list[StateError] = []

        def work() -> tuple[int, list[tuple[str, dict[str, str]]]] | None:
            if self._writer is None:
                return None
            self._check_seen(self._writer, written)
            files = {name: file for rank in written.ranks for name, file in rank.items()}
            manifest = self._writer.finish(written.draft, files, written.tables, content, written.at)
            failed.extend(after(manifest))
            return manifest.sequence, [(e.message, {key: str(at) for key, at in e.path.items()}) for e in failed]

        sequence, failures = gather_results(self._world, work)[0]
        return sequence, failed or [StateError(message, **path) for message, path in failures]

    def at_rank_0(self, work: Callable[[LeaseHolder], int]) -> int:
        """What rank 0 makes of the folder alone: a number, which all ranks get.

        Raises:
            StateError, WorldError: as `write`.
        """
        return int(gather_results(self._world, lambda: None if self._writer is None else work(self._writer))[0])

    def _check_seen(self, holder: LeaseHolder, written: Written) -> None:
        """Raises StateError if another rank's file did not come to the folder that rank 0 sees."""
        for rank, files in enumerate(written.ranks[1:], 1):
            for name, file in files.items():
                try:
                    seen = self._state.folder.size(f"{VERSIONS}/{written.draft.folder}/{name}")
                except OSError:
                    seen = -1
                if seen != file["bytes"]:
                    holder.abandon(written.draft)
                    reason = f"{name} of rank {rank} is not where rank 0 sees it: all need the same shared folder"
                    raise StateError(reason, folder=self._state.folder.root)


def commit(
    holder: LeaseHolder, kind: VersionKind, ready: Callable[[], RankFiles], content: Mapping[str, Any]
) -> Manifest:
    """Writes a version of files that this process alone makes; it exists when this returns, not at all when it raises.

    Args:
        ready: makes the files.
        content: see Version.

    Raises:
        StateError: the disk is full or failing (earlier versions are as they were), the lease was lost, or the parent
            is not the newest version of the chain.
    """
    alone = CommitAcrossRanks(holder, None)
    sequence, _ = alone.finish(alone.write(kind, ready), content, lambda _: [])
    return holder.state.manifest(kind.purpose, sequence)


def write_version(holder: LeaseHolder, kind: VersionKind, stored: Sequence[StoredTable], version: Version) -> Manifest:
    """The same of contents in memory.

    Raises:
        StateError: as `commit`; or a content is not one of these tables.
    """

    def ready() -> RankFiles:
        whole = RankPart(ALL_BUCKETS, version.tables)
        found = rank_files(stored, 0, whole, version.tensors, kind.projection)
        found.files |= artifact_files(version.artifacts)
        return found

    return commit(holder, kind, ready, version.content)

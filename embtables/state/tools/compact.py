"""`compact`: a snapshot and its deltas become one snapshot, in memory bounded by a group of buckets.

which rows there are (keys alone) -> columns streamed into a new version, each block verified first -> committed
-> pins of the version that was compacted move to it -> old versions collected
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from embtables.errors import StateError
from embtables.keyspace import ALL_BUCKETS, Buckets
from embtables.state.folder.version_folder import LeaseHolder, NewFile, StateFolder, VersionKind
from embtables.state.format.manifest import Manifest, Purpose
from embtables.state.format.table_files import rows_file
from embtables.state.format.version import parsed_artifact
from embtables.state.read.merge import MergedTable, files_of
from embtables.state.read.range_reader import RangeReader
from embtables.state.write.commit_across_ranks import commit
from embtables.state.write.rank_files import RankFiles

_CHUNK = 4 << 20


@dataclass(frozen=True, slots=True)
class Compacted:
    """The result of compacting a chain.

    Attributes:
        version: the snapshot.
        chain: what it was made of; only the snapshot, if there was no delta and so nothing was written.
        freed_bytes: size of the files that were removed afterwards.
        pins: by name the older versions that are still pinned: they and the versions they depend on are unchanged.
    """

    version: Manifest
    chain: tuple[Manifest, ...]
    freed_bytes: int
    pins: dict[str, str]


def compact(holder: LeaseHolder, purpose: Purpose, *, keep: int) -> Compacted:
    """Compacts the newest version of a purpose and those it depends on to a snapshot, and collects old versions.

    The snapshot is the next version and holds exactly what the newest one did: rows, waiting keys, dense tensors,
    clocks, and what its writer needs again. Nothing of a key that has no row in it is in its files.

    Args:
        keep: newest versions that stay, besides pinned ones.

    Raises:
        StateError: there is no version; what is read of the chain is damaged; the disk is full or failing, or the
            lease was lost. The chain is then unchanged, and nothing of a new version is left.
    """
    state = holder.state
    newest = state.latest(purpose)
    if newest is None:
        raise StateError(f"there is no {purpose} version", folder=state.folder.root)
    chain = state.chain(purpose, newest.sequence)
    if len(chain) > 1:
        version = _write_snapshot(holder, chain)
        for pin in [name for name in state.pins() if state.pinned(name) == (purpose, newest.sequence)]:
            holder.pin(pin, version)
    else:
        version = newest
    try:
        freed = holder.collect({purpose: keep})
    except StateError as error:
        raise StateError(f"{version.name} was written, but {error.message}", **error.path) from error
    pinned = {name: at for name in state.pins() if (at := state.pinned(name)) is not None}
    older = {name: f"{purpose}-{n}" for name, (of, n) in pinned.items() if of == purpose and n < version.sequence}
    return Compacted(version, tuple(chain), freed, older)


def _write_snapshot(holder: LeaseHolder, chain: Sequence[Manifest]) -> Manifest:
    state, last = holder.state, chain[-1]
    kept = [name for name in last.files if not _is_of_rows(last, name)]
    artifacts = [name for name in chain[0].files if parsed_artifact(name) is not None]
    with ExitStack() as stack:
        files: dict[str, NewFile] = {}
        tables = {}
        for table, entry in last.tables.items():
            merged = stack.enter_context(MergedTable(state, chain, table, scratch=state.folder.scratch))
            own = {
                name: _rows(merged, last.files[name].buckets or ALL_BUCKETS) for name in last.files_of(table, "rows")
            }
            own |= {name: _copy(state, last, name) for name in entry.files if name in kept}
            files |= own
            clock = {"now": entry.now, "steps": entry.steps, "updates": entry.updates, "scale": entry.scale}
            # The ranks agreed on the rest when they wrote what is copied.
            shared = {**clock, "cold": {}, "sketch": 0}
            tables[table] = {"files": list(own), "shared": shared, "figures": entry.figures}
            tables[table] |= {} if entry.keys_of is None else {"keys_of": entry.keys_of}
        files |= {name: _copy(state, last, name) for name in kept if name not in files}
        files |= {name: _copy(state, chain[0], name) for name in artifacts}
        kind = VersionKind(last.purpose, projection=last.projection, same_as=last.folder)
        return commit(holder, kind, lambda: RankFiles(files, tables), last.content)


def _is_of_rows(version: Manifest, name: str) -> bool:
    return any(name == file for table in version.tables for file, _ in files_of(version, table))


def _rows(merged: MergedTable, buckets: Buckets) -> NewFile:
    """The rows of one rank."""
    first, end = (int(merged.begins[bucket]) for bucket in buckets)
    columns = {name: merged.stream(name, first, end) for name in merged.columns}
    begins = (merged.begins.clip(first, end) - first).astype(np.uint64)
    chunks = rows_file(columns, merged.format, merged.row_columns, begins, merged.projection, merged.dtype)
    return NewFile(chunks, end - first, buckets)


def _copy(state: StateFolder, version: Manifest, name: str) -> NewFile:
    """A file that the new version has as it is."""
    reader, of = RangeReader(state, version, name), version.files[name]

    def chunks() -> Iterator[memoryview]:
        for start in range(0, reader.size, _CHUNK):
            chunk = memoryview(bytearray(min(_CHUNK, reader.size - start)))
            reader.read_into(start, chunk)
            yield chunk

    return NewFile(chunks(), of.rows, of.buckets)

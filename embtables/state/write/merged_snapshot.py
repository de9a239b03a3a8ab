"""A chain written as one snapshot with the same content, in memory bounded by a group of buckets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

import numpy as np

from embtables.keyspace import ALL_BUCKETS, Buckets
from embtables.state.folder.version_folder import LeaseHolder, NewFile, StateFolder, VersionKind
from embtables.state.format.checksums import Buffer
from embtables.state.format.manifest import Manifest
from embtables.state.format.side_file import is_side_file, side_files_of
from embtables.state.format.table_files import rows_file
from embtables.state.format.version import DENSE_FILE, dense_version, parsed_artifact
from embtables.state.format.weight_dtype import RoundingError
from embtables.state.read.merge import MergedTable, files_of
from embtables.state.read.range_reader import RangeReader
from embtables.state.write.commit_across_ranks import commit
from embtables.state.write.rank_files import RankFiles

_CHUNK = 4 << 20


def write_merged_snapshot(
    holder: LeaseHolder, chain: Sequence[Manifest], check: Callable[[], None] = lambda: None
) -> Manifest:
    """Writes the next version of a purpose, a snapshot that is the same as the last version of its newest chain.

    Args:
        check: called before each piece is written; what it raises ends the writing.

    Raises:
        StateError: what is read of the chain is damaged; the disk is full or failing, or the lease was lost. Nothing of
            the new version is left.
    """
    state, last = holder.state, chain[-1]
    kept = [name for name in last.files if not _is_of_rows(last, name) and not is_side_file(name)]
    with ExitStack() as stack:
        files: dict[str, NewFile] = {}
        tables = {}
        for table, entry in last.tables.items():
            merged = stack.enter_context(MergedTable(state, chain, table, scratch=state.folder.scratch))
            own = {
                name: _rows(merged, last.files[name].buckets or ALL_BUCKETS) for name in last.files_of(table, "rows")
            }
            own |= {name: copied_file(state, last, name) for name in entry.files if name in kept}
            files |= own
            clock = {"now": entry.now, "steps": entry.steps, "updates": entry.updates, "scale": entry.scale}
            # The ranks agreed on the rest when they wrote what is copied.
            shared = {**clock, "cold": {}, "sketch": 0}
            tables[table] = {"files": list(own), "shared": shared, "figures": entry.figures}
            tables[table] |= {} if entry.keys_of is None else {"keys_of": entry.keys_of}
            tables[table] |= _rounding(chain, table)
        files |= {name: copied_file(state, last, name) for name in kept if name not in files}
        files |= {DENSE_FILE: copied_file(state, dense_version(chain), DENSE_FILE)}
        files |= copied_artifacts(state, chain[0])
        files |= copied_side_files(state, chain)
        for file in files.values():
            file.chunks = _checked(file.chunks, check)
        kind = VersionKind(last.purpose, projection=last.projection, same_as=last.folder)
        return commit(holder, kind, lambda: RankFiles(files, tables), last.content)


def _checked(chunks: Iterable[Buffer], check: Callable[[], None]) -> Iterator[Buffer]:
    for chunk in chunks:
        check()
        yield chunk


def copied_artifacts(state: StateFolder, snapshot: Manifest) -> dict[str, NewFile]:
    """The data of encoders, as a snapshot has it."""
    names = [name for name in snapshot.files if parsed_artifact(name) is not None]
    return {name: copied_file(state, snapshot, name) for name in names}


def copied_side_files(state: StateFolder, chain: Sequence[Manifest]) -> dict[str, NewFile]:
    """The side tables of the last version of a chain, as the newest version that has each."""
    return {name: copied_file(state, version, name) for name, version in side_files_of(chain).items()}


def copied_file(state: StateFolder, version: Manifest, name: str) -> NewFile:
    """A file that the new version has as it is."""
    reader, of = RangeReader(state, version, name), version.files[name]

    def chunks() -> Iterator[memoryview]:
        for start in range(0, reader.size, _CHUNK):
            chunk = memoryview(bytearray(min(_CHUNK, reader.size - start)))
            reader.read_into(start, chunk)
            yield chunk

    return NewFile(chunks(), of.rows, of.buckets)


def _is_of_rows(version: Manifest, name: str) -> bool:
    return any(name == file for table in version.tables for file, _ in files_of(version, table))


def _rounding(chain: Sequence[Manifest], table: str) -> dict[str, Any]:
    """What rounding did to the rows of all versions of the chain: which of them are in the snapshot, it cannot say."""
    dtype, found = chain[-1].tables[table].dtype, RoundingError()
    if dtype == "fp32":
        return {}
    for version in chain:
        rows, error = version.rows_of(table, "rows"), version.tables[table].error
        if error is not None:
            found.add(RoundingError(error.max_abs, error.rms**2 * rows, rows))
    return {"dtype": dtype, "error": asdict(found)}


def _rows(merged: MergedTable, buckets: Buckets) -> NewFile:
    """The rows of one rank."""
    first, end = (int(merged.begins[bucket]) for bucket in buckets)
    columns = {name: merged.stream(name, first, end) for name in merged.columns}
    begins = (merged.begins.clip(first, end) - first).astype(np.uint64)
    chunks = rows_file(columns, merged.format, merged.row_columns, begins, merged.projection, merged.dtype)
    return NewFile(chunks, end - first, buckets)

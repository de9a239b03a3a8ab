"""Tables' contents as the files of a version, and back. What is in a file is checked before anything is made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from safetensors import SafetensorError

from embtables.errors import StateError
from embtables.keyspace import ALL_BUCKETS, Buckets, bucket_offsets, bucket_order, check_keys
from embtables.rows.content import TableContent
from embtables.rows.sketch import counter_bytes
from embtables.rows.stored_table import StoredTable
from embtables.schema.tables import FixedTable
from embtables.state.folder.version_folder import NewFile, NewVersion, StateFolder
from embtables.state.format.manifest import Manifest, table_file
from embtables.state.format.table_files import (
    TOMBSTONES_SCHEMA,
    WAITING_SCHEMA,
    row_columns,
    rows_file,
    rows_of,
    rows_schema,
    sketch_file,
    tombstones_file,
    waiting_file,
)
from embtables.state.read.table_read import read_file, read_keyed, read_sketch
from embtables.state.write.ranks import RankPart, check_agreed, check_ranges, shared_of

Tensors = dict[str, npt.NDArray[Any]]
TABLES_FILE, DENSE_FILE = "tables.safetensors", "dense.safetensors"


@dataclass
class Version:
    """A version in memory.

    Attributes:
        tables: by name; of a delta what changed.
        tensors: everything dense, by name.
        content: what else its writer wanted to know again; JSON. `schema` is part of it.
    """

    tables: dict[str, TableContent]
    tensors: Tensors = field(default_factory=dict)
    content: dict[str, Any] = field(default_factory=dict)


@dataclass
class RankFiles:
    """What one rank adds to a version.

    Attributes:
        files: by name; what they are made of may be read while they are written.
        tables: of each table the names of this rank's `files`, and what it has to have as the other ranks (`shared`).
    """

    files: dict[str, NewFile]
    tables: dict[str, dict[str, Any]]


def new_version(stored: Sequence[StoredTable], version: Version, parent: int | None) -> NewVersion:
    """The files of a version of tables that one process holds."""
    whole = RankPart(ALL_BUCKETS, version.tables)
    return new_version_of_ranks(stored, [whole], version.tensors, version.content, parent)


def new_version_of_ranks(
    stored: Sequence[StoredTable],
    parts: Sequence[RankPart],
    tensors: Tensors,
    content: Mapping[str, Any],
    parent: int | None,
) -> NewVersion:
    """The files of a version of tables that several ranks hold, by rank.

    Args:
        parts: ranges of buckets in ascending order, which are the whole key space.
        tensors: everything dense, by name.
        content: see Version.

    Raises:
        StateError: the ranges leave a gap or overlap, a rank has a key of another's buckets, or the ranks differ in
            what they share of a table (clock, steps, cold row).
    """
    check_ranges(parts)
    ranks = [rank_files(stored, rank, part, tensors) for rank, part in enumerate(parts)]
    files = {name: file for rank in ranks for name, file in rank.files.items()}
    return NewVersion(files, table_entries([rank.tables for rank in ranks]), dict(content), parent)


def rank_files(stored: Sequence[StoredTable], rank: int, part: RankPart, tensors: Tensors) -> RankFiles:
    """One rank's files of a version.

    Args:
        tensors: everything dense, by name; rank 0 alone writes it, and the cold rows.

    Raises:
        StateError: the rank has a key of another's buckets.
    """
    found = RankFiles({}, {})
    beside: Tensors = {}
    for table in stored:
        name = table.config.name
        content = part.tables[name]
        own = _files(table, rank, content, part.buckets)
        found.files |= own
        found.tables[name] = {"files": list(own), "shared": shared_of(content)}
        beside |= {f"{name}/cold/{of}": values for of, values in content.cold.items()}
    for file, named in ((TABLES_FILE, beside), (DENSE_FILE, tensors)) if rank == 0 else ():
        contiguous = {name: np.ascontiguousarray(values) for name, values in named.items()}
        found.files[file] = NewFile([safetensors.numpy.save(contiguous)])
    return found


def table_entries(ranks: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """What the manifest says of the tables, from the `tables` of each rank's RankFiles.

    Raises:
        StateError: the ranks differ in what they share.
    """
    found = {}
    for name in ranks[0]:
        shared = [rank[name]["shared"] for rank in ranks]
        check_agreed(shared, name)
        clock = {of: shared[0][of] for of in ("now", "steps", "updates")}
        found[name] = {**clock, "files": [file for rank in ranks for file in rank[name]["files"]]}
    return found


def _files(table: StoredTable, rank: int, content: TableContent, buckets: Buckets) -> dict[str, NewFile]:
    """One rank's files of a table."""
    gone = content.tombstones[bucket_order(content.tombstones, table.seed)]
    for keys in (content.keys, content.waiting, gone):
        check_keys(keys, table.seed, buckets, table=table.config.name, rank=rank)
    begins = bucket_offsets(content.keys, table.seed) if content.begins is None else content.begins
    chunks = rows_file(row_columns(content), table.config.dim, table.parts, begins)
    found = {"rows": NewFile(chunks, len(content.keys), buckets)}
    if len(content.waiting):
        found["waiting"] = NewFile(waiting_file(content, table.seed), len(content.waiting), buckets)
    if len(gone):
        found["tombstones"] = NewFile(tombstones_file(gone, table.seed), len(gone), buckets)
    if len(content.sketch):
        found["sketch"] = NewFile(sketch_file(content.sketch, buckets), buckets[1] - buckets[0], buckets)
    return {table_file(table.config.name, what, rank): file for what, file in found.items()}


def read_version(
    state: StateFolder, manifest: Manifest, stored: Sequence[StoredTable], buckets: Buckets = ALL_BUCKETS
) -> Version:
    """A version from its files, or what a rank needs of it; whatever is read is verified before it is looked into.

    Args:
        buckets: a range [first, end): tables hold the keys of these buckets alone, and of a file that holds others
            too, only the blocks are read that this takes.

    Raises:
        StateError: a file is missing, damaged or not what these tables would have written; it is named.
    """
    there, here = set(manifest.tables), {table.config.name for table in stored}
    for name in sorted(there ^ here):
        where = "these tables" if name in there else f"version {manifest.name}"
        raise StateError(f"is not part of {where}", folder=state.folder.root, table=name)
    beside = read_tensors(state, manifest, TABLES_FILE)
    tables = {table.config.name: _read_table(state, manifest, table, beside, buckets) for table in stored}
    return Version(tables, read_tensors(state, manifest, DENSE_FILE), manifest.content)


def _read_table(
    state: StateFolder, manifest: Manifest, table: StoredTable, beside: Tensors, buckets: Buckets
) -> TableContent:
    name, entry = table.config.name, manifest.tables[table.config.name]
    rows, waiting, gone = (
        read_keyed(state, manifest, name, what, schema, table.seed, buckets)
        for what, schema in (
            ("rows", rows_schema(table.config.dim, table.parts)),
            ("waiting", WAITING_SCHEMA),
            ("tombstones", TOMBSTONES_SCHEMA),
        )
    )
    keys, parts, seen, counts = rows_of(rows, table.config.dim, table.parts)
    found = TableContent(keys, parts, seen, counts, now=entry.now, steps=entry.steps, updates=entry.updates)
    if isinstance(table.config, FixedTable):
        if len(keys) and not 0 <= keys.min() <= keys.max() < table.config.num_rows:
            file = state.folder.path(state.file(manifest, entry.files[0]))
            raise StateError(f"has keys outside 0..{table.config.num_rows - 1}", file=file)
        return found
    if waiting is not None:
        found.waiting, found.waiting_counts, found.waiting_seen = (c.to_numpy() for c in waiting.columns)
    if gone is not None:
        found.tombstones = gone.column("key").to_numpy()
    width = counter_bytes(table.config)
    sketch = None if width is None else read_sketch(state, manifest, name, width, buckets)
    found.sketch = found.sketch if sketch is None else sketch
    found.cold = {part: _cold(state, manifest, table, part, beside) for part in table.parts}
    return found


def _cold(state: StateFolder, manifest: Manifest, table: StoredTable, part: str, beside: Tensors) -> npt.NDArray[Any]:
    shape = (1, table.config.dim) if table.parts[part] else (1,)
    values = beside.get(f"{table.config.name}/cold/{part}")
    if values is None or values.shape != shape or values.dtype != np.float32:
        file = state.folder.path(state.file(manifest, TABLES_FILE))
        raise StateError(f"holds no cold row {part} of shape {shape}", file=file, table=table.config.name)
    return values


def read_tensors(state: StateFolder, manifest: Manifest, name: str) -> Tensors:
    """The tensors of one of a version's safetensors files. Raises StateError where it is missing or damaged."""
    try:
        return dict(safetensors.numpy.load(bytes(read_file(state, manifest, name))))
    except (SafetensorError, ValueError, KeyError) as error:
        raise StateError(f"is damaged: {error}", file=state.folder.path(state.file(manifest, name))) from error

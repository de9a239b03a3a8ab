"""Tables' contents as the files of a version, and back. What is in a file is checked before anything is made of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy
import xxhash
from safetensors import SafetensorError

from embtables.errors import StateError
from embtables.schema.tables import FixedTable, Table
from embtables.state.content import TableContent, buckets_of
from embtables.state.manifest import Manifest
from embtables.state.store import NewFile, NewVersion, StateFolder
from embtables.state.table_files import (
    ALL_BUCKETS,
    TOMBSTONES_SCHEMA,
    WAITING_SCHEMA,
    parts_of,
    read_batch,
    rows_file,
    rows_of,
    rows_schema,
    tombstones_file,
    waiting_file,
)

Tensors = dict[str, npt.NDArray[Any]]
TABLES_FILE, DENSE_FILE = "tables.safetensors", "dense.safetensors"
_RANK = 0


@dataclass(frozen=True, slots=True)
class StoredAs:
    """How a table lies in files: the seed decides its buckets."""

    config: Table
    seed: int

    @property
    def parts(self) -> dict[str, bool]:
        """Its tensors; True: D values a row."""
        return parts_of(self.config.optimizer.kind)

    def file(self, what: str) -> str:
        """The name of its file of rows, waiting keys or tombstones."""
        return f"{self.config.name}.{what}.{_RANK}.arrow"


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


def new_version(stored: Sequence[StoredAs], version: Version, parent: int | None) -> NewVersion:
    """The files of a version."""
    files: dict[str, NewFile] = {}
    tables: dict[str, dict[str, Any]] = {}
    beside: Tensors = {}
    for table in stored:
        name, content = table.config.name, version.tables[table.config.name]
        own = {table.file("rows"): _rows(table, content)}
        if len(content.waiting):
            chunks = waiting_file(content, table.seed)
            own[table.file("waiting")] = NewFile(chunks, len(content.waiting), ALL_BUCKETS)
        if len(content.tombstones):
            own[table.file("tombstones")] = _tombstones(table, content)
        beside |= {f"{name}/cold/{part}": values for part, values in content.cold.items()}
        beside |= {f"{name}/sketch": content.sketch} if len(content.sketch) else {}
        files |= own
        tables[name] = {
            "now": content.now,
            "steps": content.steps,
            "updates": content.updates,
            "files": list(own),
        }
    for file, tensors in ((TABLES_FILE, beside), (DENSE_FILE, version.tensors)):
        contiguous = {name: np.ascontiguousarray(values) for name, values in tensors.items()}
        files[file] = NewFile([safetensors.numpy.save(contiguous)])
    return NewVersion(files, tables, version.content, parent)


def _rows(table: StoredAs, content: TableContent) -> NewFile:
    chunks = rows_file(content, table.config.dim, table.parts, table.seed)
    return NewFile(chunks, len(content.keys), ALL_BUCKETS)


def _tombstones(table: StoredAs, content: TableContent) -> NewFile:
    keys = content.tombstones[np.lexsort((content.tombstones, buckets_of(content.tombstones, table.seed)))]
    return NewFile(tombstones_file(keys, table.seed), len(keys), ALL_BUCKETS)


def read_version(state: StateFolder, manifest: Manifest, stored: Sequence[StoredAs]) -> Version:
    """A version from its files, each verified whole before it is looked into.

    Raises:
        StateError: a file is missing, damaged or not what these tables would have written; it is named.
    """
    there, here = set(manifest.tables), {table.config.name for table in stored}
    for name in sorted(there ^ here):
        where = "these tables" if name in there else f"version {manifest.name}"
        raise StateError(f"is not part of {where}", folder=state.folder.root, table=name)
    beside = tensors_of(state, manifest, TABLES_FILE)
    tables = {table.config.name: _read_table(state, manifest, table, beside) for table in stored}
    return Version(tables, tensors_of(state, manifest, DENSE_FILE), manifest.content)


def _read_table(state: StateFolder, manifest: Manifest, table: StoredAs, beside: Tensors) -> TableContent:
    name, entry = table.config.name, manifest.tables[table.config.name]
    path = state.folder.path(state.file(manifest, table.file("rows")))
    batch = _read(state, manifest, table, "rows", rows_schema(table.config.dim, table.parts))
    if batch is None:
        raise StateError("has no rows file in the manifest", file=path)
    keys, parts, seen, counts = rows_of(batch, table.config.dim, table.parts)
    found = TableContent(keys, parts, seen, counts, now=entry.now, steps=entry.steps, updates=entry.updates)
    _check_keys(table, keys, path)
    if (waiting := _read(state, manifest, table, "waiting", WAITING_SCHEMA)) is not None:
        found.waiting, found.waiting_counts, found.waiting_seen = (c.to_numpy() for c in waiting.columns)
        _check_keys(table, found.waiting, state.folder.path(state.file(manifest, table.file("waiting"))))
    if (gone := _read(state, manifest, table, "tombstones", TOMBSTONES_SCHEMA)) is not None:
        found.tombstones = gone.column("key").to_numpy()
    if not isinstance(table.config, FixedTable):
        found.sketch = beside.get(f"{name}/sketch", found.sketch)
        found.cold = {part: _cold(state, manifest, table, part, beside) for part in table.parts}
    return found


def _check_keys(table: StoredAs, keys: npt.NDArray[np.int64], path: object) -> None:
    """Keys are in the order of the buckets, each once, and within a fixed table."""
    buckets = buckets_of(keys, table.seed)
    falls = (buckets[1:] < buckets[:-1]) | ((buckets[1:] == buckets[:-1]) & (keys[1:] <= keys[:-1]))
    if falls.any():
        raise StateError(f"key {keys[1:][falls][0]} comes twice or out of order: another seed wrote it", file=path)
    if isinstance(table.config, FixedTable) and len(keys) and not 0 <= keys.min() <= keys.max() < table.config.num_rows:
        raise StateError(f"has keys outside 0..{table.config.num_rows - 1}", file=path)


def _cold(state: StateFolder, manifest: Manifest, table: StoredAs, part: str, beside: Tensors) -> npt.NDArray[Any]:
    shape = (1, table.config.dim) if table.parts[part] else (1,)
    values = beside.get(f"{table.config.name}/cold/{part}")
    if values is None or values.shape != shape or values.dtype != np.float32:
        file = state.folder.path(state.file(manifest, TABLES_FILE))
        raise StateError(f"holds no cold row {part} of shape {shape}", file=file, table=table.config.name)
    return values


def _read(state: StateFolder, manifest: Manifest, table: StoredAs, what: str, schema: Any) -> Any:
    """The record batch of one of a table's files; None where the manifest has none."""
    name = table.file(what)
    if name not in manifest.tables[table.config.name].files:
        return None
    raw = read_file(state, manifest, name)
    rows = manifest.files[name].rows
    return read_batch(raw, schema, -1 if rows is None else rows, state.folder.path(state.file(manifest, name)))


def tensors_of(state: StateFolder, manifest: Manifest, name: str) -> Tensors:
    """A version's safetensors file, verified. Raises StateError where it is missing or damaged."""
    try:
        return dict(safetensors.numpy.load(bytes(read_file(state, manifest, name))))
    except (SafetensorError, ValueError, KeyError) as error:
        raise StateError(f"is damaged: {error}", file=state.folder.path(state.file(manifest, name))) from error


def read_file(state: StateFolder, manifest: Manifest, name: str) -> memoryview:
    """A file's bytes, which are those that were written.

    Raises:
        StateError: the version has no such file, or its length or checksum differ.
    """
    if name not in manifest.files:
        raise StateError(f"has no file {name}", folder=state.folder.root, version=manifest.name)
    state.check_size(manifest, name)
    path = state.file(manifest, name)
    raw = state.folder.read_buffer(path, manifest.files[name].bytes)
    if xxhash.xxh3_128_hexdigest(raw) != manifest.files[name].xxh3:
        raise StateError("is damaged: its checksum is not the one recorded", file=state.folder.path(path))
    return raw

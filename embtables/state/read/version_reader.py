"""A version from its files. What is in a file is checked before anything is made of it."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from safetensors import SafetensorError

from embtables.errors import ConfigError, StateError
from embtables.given import need, need_all, shown
from embtables.ids import Artifacts
from embtables.keyspace import ALL_BUCKETS, NUM_BUCKETS, Buckets
from embtables.rows.content import TableContent
from embtables.rows.optimizers import WEIGHT
from embtables.rows.sketch import counter_bytes
from embtables.rows.stored_table import StoredTable
from embtables.schema.tables import FixedTable
from embtables.state.folder.version_folder import StateFolder
from embtables.state.format.manifest import Manifest
from embtables.state.format.projection import SCALARS, held_columns
from embtables.state.format.table_files import TOMBSTONES_SCHEMA, WAITING_SCHEMA, rows_schema
from embtables.state.format.version import DENSE_FILE, TABLES_FILE, Tensors, Version, artifact_file, parsed_artifact
from embtables.state.format.weight_dtype import decoded
from embtables.state.read.range_reader import RangeReader
from embtables.state.read.table_read import read_keyed, read_sketch

# What safetensors raises for bytes that it cannot make arrays of.
_NOT_SAFETENSORS = (SafetensorError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, MemoryError)


def read_version(
    state: StateFolder, manifest: Manifest, stored: Sequence[StoredTable], buckets: Buckets = ALL_BUCKETS
) -> Version:
    """A version from its files, or what a rank needs of it; whatever is read is verified before it is looked into.

    Contents of a version of `weights` have no optimizer state, no counts and no waiting keys; their weights are
    float32, whatever the files have.

    Args:
        buckets: a range [first, end): tables hold only the keys of these buckets; if a file holds others too, only
            the blocks that are needed are read.

    Raises:
        ConfigError: an argument is of another kind.
        StateError: a file is missing, damaged or not what these tables would have written; it is named.
    """
    need(state, StateFolder, "state", "a StateFolder")
    need(manifest, Manifest, "manifest", "the Manifest of a version")
    need_all(stored, StoredTable, "stored", "StoredTable, as Tables.stored")
    first, end = _buckets(buckets)
    there, here = set(manifest.tables), {table.config.name for table in stored}
    for name in sorted(there ^ here):
        where = "these tables" if name in there else f"version {manifest.name}"
        raise StateError(f"is not part of {where}", folder=state.folder.root, table=name)
    beside = read_tensors(state, manifest, TABLES_FILE)
    tables = {table.config.name: _read_table(state, manifest, table, beside, (first, end)) for table in stored}
    has_dense = manifest.parent is None or DENSE_FILE in manifest.files
    return Version(tables, read_tensors(state, manifest, DENSE_FILE) if has_dense else {}, manifest.content)


def _buckets(given: Any) -> Buckets:
    try:
        first, end = (operator.index(each) for each in given)
    except (TypeError, ValueError, RuntimeError):
        first, end = -1, -1
    if not 0 <= first <= end <= NUM_BUCKETS:
        reason = f"must be two numbers from 0 to {NUM_BUCKETS:,}, ascending; received {shown(given)}"
        raise ConfigError(reason, argument="buckets")
    return first, end


def shares_keys(manifest: Manifest) -> bool:
    """Whether first-order weights have the keys of their table's embeddings; of older builds they had their own.

    `Tables(..., shares_keys=shares_keys(chain[0]))` has the keys that the version's tables have.
    """
    return any(entry.keys_of is not None for entry in manifest.tables.values())


def _read_table(
    state: StateFolder, manifest: Manifest, table: StoredTable, beside: Tensors, buckets: Buckets
) -> TableContent:
    name, entry = table.config.name, manifest.tables[table.config.name]
    if entry.keys_of != table.keys_of:
        reason = "it and the tables differ in shares_keys: make the tables with shares_keys=shares_keys(...)"
        raise StateError(reason, version=manifest.name, table=name)
    rows, waiting, gone = (
        read_keyed(state, manifest, name, what, schema, table.seed, buckets)
        for what, schema in (
            ("rows", rows_schema(table.format, table.columns, manifest.projection, entry.dtype)),
            ("waiting", WAITING_SCHEMA),
            ("tombstones", TOMBSTONES_SCHEMA),
        )
    )
    if rows is None:
        raise StateError("has no rows of these buckets", version=manifest.name, table=name)
    held = held_columns(table.columns, manifest.projection)
    rows[WEIGHT] = decoded(rows[WEIGHT], entry.dtype)
    keys, columns = rows["key"], {column: rows[column] for column in held}
    none = np.empty(0, np.uint32)
    seen, counts = rows["seen"], rows["count"] if "count" in SCALARS[manifest.projection] else none
    found = TableContent(keys, columns, seen, counts, now=entry.now, steps=entry.steps, updates=entry.updates)
    found.scale, found.figures = entry.scale, dict(entry.figures)
    if isinstance(table.config, FixedTable):
        if len(keys) and not 0 <= keys.min() <= keys.max() < table.config.num_rows:
            file = state.folder.path(state.file(manifest, entry.files[0]))
            raise StateError(f"has keys outside 0..{table.config.num_rows - 1}", file=file)
        return found
    if waiting is not None:
        found.waiting, found.waiting_counts, found.waiting_seen = (waiting[c] for c in ("key", "count", "seen"))
    if gone is not None:
        found.tombstones = gone["key"]
    width = counter_bytes(table.config)
    sketch = None if width is None else read_sketch(state, manifest, name, width, buckets)
    found.sketch = found.sketch if sketch is None else sketch
    found.cold = {column: _cold(state, manifest, table, column, beside) for column in held}
    return found


def _cold(state: StateFolder, manifest: Manifest, table: StoredTable, column: str, beside: Tensors) -> npt.NDArray[Any]:
    shape = (1, table.config.dim) if table.columns[column] else (1,)
    values = beside.get(f"{table.config.name}/cold/{column}")
    if values is None or values.shape != shape or values.dtype != table.format.dtype_of(column):
        file = state.folder.path(state.file(manifest, TABLES_FILE))
        raise StateError(f"holds no cold row {column} of shape {shape}", file=file, table=table.config.name)
    return values


def read_artifacts(state: StateFolder, snapshot: Manifest) -> dict[str, Artifacts]:
    """By feature the data of its encoder, of a snapshot and so of the deltas that stand on it.

    `Tables(..., artifacts=read_artifacts(state, chain[0]))` makes the keys that the version's tables were trained by.

    Raises:
        StateError: a file is missing or damaged.
    """
    return {
        feature: Artifacts(
            {name: bytes(RangeReader(state, snapshot, artifact_file(feature, name)).read_all()) for name in names}
        )
        for feature, names in artifact_digests(snapshot).items()
    }


def artifact_digests(snapshot: Manifest) -> dict[str, dict[str, str]]:
    """By feature the checksum of each of its encoder's artifacts, as the snapshot's manifest has it."""
    found: dict[str, dict[str, str]] = {}
    for file, of in sorted(snapshot.files.items()):
        parsed = parsed_artifact(file)
        if parsed is not None:
            found.setdefault(parsed[0], {})[parsed[1]] = of.xxh3
    return found


def read_tensors(state: StateFolder, manifest: Manifest, name: str) -> Tensors:
    """The tensors of one of a version's safetensors files. Raises StateError if it is missing or damaged."""
    reader = RangeReader(state, manifest, name)
    raw = reader.read_all()
    try:
        return dict(safetensors.numpy.load(bytes(raw)))
    except _NOT_SAFETENSORS as error:
        raise StateError(f"is damaged: {error}", file=reader.path) from error

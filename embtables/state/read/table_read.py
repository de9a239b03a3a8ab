"""A table's files, of one rank or several, read for a range of buckets: whole files, or of a file what that takes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import xxhash

from embtables.errors import StateError
from embtables.keyspace import Buckets, Keys, Offsets, buckets_of, check_keys
from embtables.rows.sketch import Bytes, columns, empty
from embtables.state.folder.version_folder import StateFolder
from embtables.state.format.manifest import Manifest
from embtables.state.format.table_files import need_whole, read_buckets, sketch_schema
from embtables.state.read.blocks import FileBlocks


def read_file(state: StateFolder, manifest: Manifest, name: str) -> memoryview:
    """A file's bytes, which are those that were written.

    Raises:
        StateError: the version has no such file, it cannot be read, or its length or checksum differ.
    """
    if name not in manifest.files:
        raise StateError(f"has no file {name}", folder=state.folder.root, version=manifest.name)
    state.check_size(manifest, name)
    path = state.file(manifest, name)
    try:
        raw = state.folder.read_buffer(path, manifest.files[name].bytes)
    except OSError as error:
        raise StateError(f"cannot be read: {error.strerror}", file=state.folder.path(path)) from error
    if xxhash.xxh3_128_hexdigest(raw) != manifest.files[name].xxh3:
        raise StateError("is damaged: its checksum is not the one recorded", file=state.folder.path(path))
    return raw


def read_keyed(
    state: StateFolder, manifest: Manifest, table: str, what: str, schema: pa.Schema, seed: int, buckets: Buckets
) -> pa.RecordBatch | None:
    """What lies in buckets [first, end) of a table's rows, waiting keys or tombstones; None where there is no file.

    Args:
        seed: the table's; it decides the bucket of a key.

    Raises:
        StateError: a file is missing or damaged, is not what this table would have written, or has a key that is not
            of the buckets it is said to be of; it is named.
    """
    batches = []
    for batch, begins, held, path in _parts(state, manifest, table, what, schema, buckets):
        _check_order(batch.column("key").to_numpy(), begins, held, seed, path)
        batches.append(batch)
    return pa.concat_batches(batches) if len(batches) > 1 else batches[0] if batches else None


def read_sketch(state: StateFolder, manifest: Manifest, table: str, width: int, buckets: Buckets) -> Bytes | None:
    """The count sketch of a table, of nothing outside buckets [first, end); None where there is no file.

    Args:
        width: bytes of a bucket's counters.

    Raises:
        StateError: a file is missing or damaged, or the table would have counted otherwise.
    """
    parts = _parts(state, manifest, table, "sketch", sketch_schema(width), buckets)
    sketch, known = empty(width), 0
    heads, counters = columns(sketch)
    for batch, begins, held, path in parts:
        if not np.array_equal(begins, np.arange(len(begins))):
            raise StateError("has not one row for each bucket", file=path)
        rows = slice(*held)
        for number in range(heads.shape[1]):
            heads[rows, number] = batch.column(number).to_numpy()
        counters[rows] = batch.column("counters").flatten().to_numpy().reshape(-1, width)
        known += batch.num_rows
    if known not in (0, buckets[1] - buckets[0]):
        raise StateError(f"holds the sketch of {known} of its buckets", version=manifest.name, table=table)
    return sketch if known else None


def _parts(
    state: StateFolder, manifest: Manifest, table: str, what: str, schema: pa.Schema, buckets: Buckets
) -> Iterator[tuple[pa.RecordBatch, Offsets, Buckets, Path]]:
    """Of each file that has some of the buckets: their rows, where buckets begin among these, which, and its path."""
    for name in manifest.files_of(table, what):
        file, path = manifest.files[name], state.folder.path(state.file(manifest, name))
        assert file.buckets is not None
        held = max(file.buckets[0], buckets[0]), min(file.buckets[1], buckets[1])
        if held == file.buckets:
            raw = read_file(state, manifest, name)
            batch, begins = read_buckets(raw, need_whole(raw, path), schema, file, path, held)
        elif held[0] < held[1]:
            blocks = FileBlocks(state, manifest, name)
            batch, begins = read_buckets(blocks.view, blocks.need, schema, file, path, held)
        else:
            continue
        yield batch, begins, held, path


def _check_order(keys: Keys, begins: Offsets, buckets: Buckets, seed: int, path: Path) -> None:
    """Keys are in the order of their buckets, each once, and lie where the file says that their bucket does."""
    found = buckets_of(keys, seed)
    falls = (found[1:] < found[:-1]) | ((found[1:] == found[:-1]) & (keys[1:] <= keys[:-1]))
    if falls.any():
        raise StateError(f"key {keys[1:][falls][0]} comes twice or out of order: another seed wrote it", file=path)
    check_keys(keys, seed, buckets, file=path)
    if not np.array_equal(np.searchsorted(found, np.arange(buckets[0], buckets[1] + 1)), begins):
        raise StateError("has keys outside the buckets where it says that they are", file=path)

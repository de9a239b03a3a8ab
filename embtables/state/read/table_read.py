"""A table's files, of one rank or several, read for a range of buckets: of a file no more blocks than that takes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embtables.errors import StateError
from embtables.keyspace import Buckets, Keys, Offsets, buckets_of, check_keys
from embtables.rows.sketch import HEADS, Bytes, columns, empty
from embtables.state.folder.version_folder import StateFolder
from embtables.state.format.manifest import Manifest
from embtables.state.format.table_files import sketch_schema
from embtables.state.read.table_file import TableFile

Array = npt.NDArray[Any]


def read_keyed(
    state: StateFolder, version: Manifest, table: str, what: str, schema: pa.Schema, seed: int, buckets: Buckets
) -> dict[str, Array] | None:
    """What buckets [first, end) hold of a table's rows, waiting keys or tombstones, by column: (n,) or (n, D).

    Args:
        seed: the table's; it decides the bucket of a key.

    Returns:
        None if there is no such file.

    Raises:
        StateError: a file is missing or damaged, is not what this table would have written, or has a key that is not
            of the buckets it is said to be of; it is named.
    """
    parts = list(_parts(state, version, table, what, schema, buckets))
    if not parts:
        return None
    sizes = [int(file.begins[held[1]] - file.begins[held[0]]) for file, held in parts]
    found = {name: parts[0][0].empty(name, sum(sizes)) for name in schema.names}
    end = 0
    for (file, held), size in zip(parts, sizes, strict=True):
        start, end = end, end + size
        begins = file.begins[held[0] : held[1] + 1]
        for name, values in found.items():
            file.read_into(name, int(begins[0]), values[start:end])
        _check_order(found["key"][start:end], begins - begins[0], held, seed, file.path)
    return found


def read_sketch(state: StateFolder, version: Manifest, table: str, width: int, buckets: Buckets) -> Bytes | None:
    """The count sketch of a table, of nothing outside buckets [first, end); None if there is no file.

    Args:
        width: bytes of a bucket's counters.

    Raises:
        StateError: a file is missing or damaged, or the table would have counted otherwise.
    """
    sketch, known = empty(width), 0
    heads, counters = columns(sketch)
    for file, held in _parts(state, version, table, "sketch", sketch_schema(width), buckets):
        begins = file.begins[held[0] : held[1] + 1]
        if not np.array_equal(begins - begins[0], np.arange(len(begins))):
            raise StateError("must have one row for each bucket", file=file.path)
        start, rows = int(begins[0]), slice(*held)
        for number, name in enumerate(HEADS):
            heads[rows, number] = file.read(name, start, int(begins[-1]))
        file.read_into("counters", start, counters[rows])
        known += held[1] - held[0]
    if known not in (0, buckets[1] - buckets[0]):
        raise StateError(f"holds the sketch of only {known} of its buckets", version=version.name, table=table)
    return sketch if known else None


def _parts(
    state: StateFolder, version: Manifest, table: str, what: str, schema: pa.Schema, buckets: Buckets
) -> Iterator[tuple[TableFile, Buckets]]:
    """Each file that may have some of the buckets, and which of them."""
    for name in version.files_of(table, what):
        of = version.files[name].buckets
        assert of is not None
        held = max(of[0], buckets[0]), min(of[1], buckets[1])
        if held[0] < held[1]:
            yield TableFile(state, version, name, schema), held


def _check_order(keys: Keys, begins: Offsets, buckets: Buckets, seed: int, path: PurePath) -> None:
    """Checks that keys are in the order of their buckets, each once, and in the bucket that the file says."""
    found = buckets_of(keys, seed)
    falls = (found[1:] < found[:-1]) | ((found[1:] == found[:-1]) & (keys[1:] <= keys[:-1]))
    if falls.any():
        raise StateError(f"key {keys[1:][falls][0]} comes twice or out of order: another seed wrote it", file=path)
    check_keys(keys, seed, buckets, file=path)
    if not np.array_equal(np.searchsorted(found, np.arange(buckets[0], buckets[1] + 1)), begins):
        raise StateError("has keys outside the buckets that it gives for them", file=path)

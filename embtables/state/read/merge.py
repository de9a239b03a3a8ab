"""`MergedTable`: the rows of a table as the last version of a chain has them, read off the files of all its versions.

One pass over the keys alone, bucket by bucket, finds for every existing row the file and the place where it was last
written. That selection is in a temporary file without a name, 8 bytes per row: memory holds a group of buckets.
Columns are then read by range, as often as they are wanted. Newest wins; a tombstone removes what versions before its
own wrote, not a row of its own version (`RowStore.apply` removes first and places then).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from types import TracebackType
from typing import IO, Any, Literal

import numpy as np
import numpy.typing as npt

from embtables.errors import StateError
from embtables.keyspace import NUM_BUCKETS
from embtables.rows.content import Streamed, scaled
from embtables.rows.optimizers import WEIGHT
from embtables.state.folder.version_folder import StateFolder
from embtables.state.format.manifest import Manifest
from embtables.state.format.projection import SCALARS
from embtables.state.format.table_files import TOMBSTONES_SCHEMA
from embtables.state.format.weight_dtype import decoded
from embtables.state.read.range_reader import KeptBlocks
from embtables.state.read.table_file import TableFile

Array = npt.NDArray[Any]
Places = npt.NDArray[np.uint64]

KEYS_AT_A_TIME = 1 << 20  # of all files, in the pass over keys; at least one bucket
BYTES_AT_A_TIME = 8 << 20  # of a column
_KEPT_BLOCKS = 32  # at most, of all files; columns are read one after the other, a block of each file at a time
_INDEX_BITS = np.uint64(40)
_INDEX = np.uint64((1 << 40) - 1)


class MergedTable:
    """Rows of one table, sorted by bucket and then by key: `with MergedTable(state, chain, table) as rows`.

    Args:
        chain: a snapshot and the deltas after it.
    Attributes:
        rows: how many there are.
        begins: (1,025,) int64, where each bucket begins.
        format, row_columns: how the columns of rows lie; weight and optimizer state, True: D values per row.
        projection: what the versions hold of their tables.
        dtype: how files have the weights; `read` and `take` give float32, `stream` what files have.
        columns: names of all columns: key, those of rows, seen, count; of `weights` key, weight, seen.

    Raises:
        StateError: a version has no such table, or its files are missing, damaged, of other columns or out of order.
    """

    def __init__(self, state: StateFolder, chain: Sequence[Manifest], table: str, scratch: Path | None = None) -> None:
        files_of(chain[-1], table)  # what the newest version lacks is said of that one
        self.dtype = chain[-1].tables[table].dtype
        for version in chain:
            if version.tables[table].dtype != self.dtype:
                reason = f"has weights in {version.tables[table].dtype}, {chain[-1].name} after it in {self.dtype}"
                raise StateError(reason, version=version.name, table=table)
        wanted = [(version, *file) for version in chain for file in files_of(version, table)]
        kept = KeptBlocks(min(_KEPT_BLOCKS, len(wanted) + 2))
        self._files = [
            TableFile(
                state,
                version,
                name,
                TOMBSTONES_SCHEMA if kind == "tombstones" else None,
                kept,
                version.tables[table].dtype,
            )
            for version, name, kind in wanted
        ]
        rows_files = [file for file in self._files if file.row_columns]
        self._layout = rows_files[-1]
        assert self._layout.format is not None
        self.format, self.row_columns = self._layout.format, self._layout.row_columns
        self.projection = chain[-1].projection
        self._scale = chain[-1].tables[table].scale
        self.columns = ("key", *self.row_columns, *SCALARS[self.projection])
        for file in rows_files:
            if (file.format, file.row_columns) != (self.format, self.row_columns):
                newest = self._layout.path
                raise StateError(f"has other columns than {newest}, which is in the same chain", file=file.path)
        self._scratch = scratch
        self._places: IO[bytes] | None = None
        self.rows = 0
        self.begins = np.zeros(NUM_BUCKETS + 1, np.int64)

    def __enter__(self) -> MergedTable:
        try:
            # Unnamed: a process that dies leaves nothing.
            self._places = tempfile.TemporaryFile(buffering=0, dir=self._scratch)
            counts = np.zeros(NUM_BUCKETS, np.int64)
            totals = np.sum([np.diff(file.begins) for file in self._files], axis=0)
            for first, end in groups(totals, KEYS_AT_A_TIME):
                places, counts[first:end] = self._merge(first, end)
                _write_all(self._places, places)
        except OSError as error:
            self.close()
            where = self._scratch or tempfile.gettempdir()
            raise StateError(f"cannot hold a temporary file: {error.strerror}", folder=where) from error
        except BaseException:
            self.close()
            raise
        self.begins[1:] = np.cumsum(counts)
        self.rows = int(self.begins[-1])
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Frees the temporary file."""
        if self._places is not None:
            self._places.close()

    def _merge(self, first: int, end: int) -> tuple[Places, npt.NDArray[np.int64]]:
        """The places of the rows of the buckets [first, end), in their order; and how many each bucket has."""
        keys, buckets, places = [], [], []
        for number, file in enumerate(self._files):
            start, stop = int(file.begins[first]), int(file.begins[end])
            if start == stop:
                continue
            keys.append(file.read("key", start, stop))
            buckets.append(np.repeat(np.arange(first, end, dtype=np.uint16), np.diff(file.begins[first : end + 1])))
            places.append(np.arange(start, stop, dtype=np.uint64) | np.uint64(number) << _INDEX_BITS)
            _check_order(keys[-1], buckets[-1], file.path)
        if not keys:
            return np.empty(0, np.uint64), np.zeros(end - first, np.int64)
        key, bucket, place = np.concatenate(keys), np.concatenate(buckets), np.concatenate(places)
        # The sort is stable and files are in the order of their versions: the newest of a key's entries comes last.
        order = np.lexsort((key, bucket))
        key, bucket, place = key[order], bucket[order], place[order]
        newest = np.append((key[1:] != key[:-1]) | (bucket[1:] != bucket[:-1]), True)
        tombstones = np.array([not file.row_columns for file in self._files])
        stays = newest & ~tombstones[(place >> _INDEX_BITS).astype(np.intp)]
        return place[stays], np.bincount(bucket[stays] - np.uint16(first), minlength=end - first)

    def row_bytes(self, name: str) -> int:
        """Bytes of one row's values of a column."""
        return self._layout.row_bytes(name)

    def rows_at_a_time(self, *names: str) -> int:
        """How many rows of these columns are worth reading at once."""
        return max(1, min(KEYS_AT_A_TIME, BYTES_AT_A_TIME // sum(map(self.row_bytes, names))))

    def read(self, name: str, start: int, stop: int) -> Array:
        """Values of a column, of the rows [start, stop): (n,) or (n, D).

        Raises:
            StateError: the disk fails, or what is read is damaged.
        """
        return self._true(name, self._stored(name, start, stop))

    def _stored(self, name: str, start: int, stop: int) -> Array:
        return self._gather(name, self._selection(start, stop))

    def _true(self, name: str, stored: Array) -> Array:
        return scaled(decoded(stored, self.dtype), self._scale) if name == WEIGHT else stored

    def take(self, name: str, rows: npt.NDArray[np.int64]) -> Array:
        """Values of a column, of rows (n,) that ascend: (n,) or (n, D). Raises as `read`."""
        if len(rows) == 0:
            return self.read(name, 0, 0)
        places = self._selection(int(rows[0]), int(rows[-1]) + 1)[rows - rows[0]]
        return self._true(name, self._gather(name, places))

    def stream(self, name: str, first: int, end: int) -> Streamed:
        """A column of the rows [first, end), as files have it: weights at the newest version's scale."""
        nothing, step = self._layout.empty(name, 0), self.rows_at_a_time(name)

        def pieces() -> Iterator[Array]:
            for start in range(first, end, step):
                yield self._stored(name, start, min(start + step, end))

        return Streamed((end - first, *nothing.shape[1:]), nothing.dtype, pieces)

    def _selection(self, start: int, stop: int) -> Places:
        assert self._places is not None
        found = np.empty(stop - start, np.uint64)
        view, at = found.view(np.uint8).data, start * found.itemsize
        while len(view):
            got = os.preadv(self._places.fileno(), [view], at)
            if got == 0:
                raise StateError(f"rows {start:,} to {stop:,} were asked for, but there are {self.rows:,}")
            view, at = view[got:], at + got
        return found

    def _gather(self, name: str, places: Places) -> Array:
        """Values at these places; within one file they ascend."""
        numbers = (places >> _INDEX_BITS).astype(np.uint16 if len(self._files) <= 1 << 16 else np.uint32)
        order = np.argsort(numbers, kind="stable")  # of 16 bits: a radix sort
        indices = (places[order] & _INDEX).astype(np.int64)
        found = self._layout.empty(name, len(places))
        ends = np.searchsorted(numbers[order], np.arange(len(self._files) + 1))
        window = self.rows_at_a_time(name)
        for file, begin, end in zip(self._files, ends[:-1].tolist(), ends[1:].tolist(), strict=True):
            # Rows that are gone may lie between: a window of the file is read at a time, from one that is wanted on.
            at = begin
            while at < end:
                low = int(indices[at])
                upto = at + int(np.searchsorted(indices[at:end], low + window))
                values = file.read(name, low, int(indices[upto - 1]) + 1)
                found[order[at:upto]] = values[indices[at:upto] - low]
                at = upto
        return found


def files_of(version: Manifest, table: str) -> list[tuple[str, Literal["rows", "tombstones"]]]:
    """A table's files in a version that say which rows there are, and what each holds, tombstones first.

    Raises:
        StateError: the version has no such table, or no rows of it.
    """
    if table not in version.tables:
        known = ", ".join(sorted(version.tables))
        raise StateError(f"has no table '{table}'; it has: {known}", version=version.name)
    kinds: tuple[Literal["rows", "tombstones"], ...] = ("tombstones", "rows")
    return [(name, kind) for kind in kinds for name in version.files_of(table, kind)]


def groups(counts: npt.NDArray[np.int64], limit: int) -> Iterator[tuple[int, int]]:
    """Ranges [first, end) of buckets with at most `limit` rows together, or one bucket."""
    first, rows = 0, 0
    for bucket, count in enumerate(counts.tolist()):
        if bucket > first and rows + count > limit:
            yield first, bucket
            first, rows = bucket, 0
        rows += count
    yield first, len(counts)


def _check_order(keys: npt.NDArray[np.int64], buckets: npt.NDArray[np.uint16], path: PurePath) -> None:
    falls = (buckets[1:] == buckets[:-1]) & (keys[1:] <= keys[:-1])
    if falls.any():
        raise StateError(f"key {keys[1:][falls][0]} comes twice or out of order", file=path)


def _write_all(file: IO[bytes], places: Places) -> None:
    view = places.view(np.uint8).data
    while len(view):
        view = view[file.write(view) :]

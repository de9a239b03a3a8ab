"""`TableFile`: rows of a table's file by range, so that no file has to be in memory whole.

Where the columns lie in the file is told by Arrow, over a map of the file of which only the metadata is touched; rows
are then read with pread into memory of their own.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embtables.errors import StateError
from embtables.keyspace import NUM_BUCKETS
from embtables.state.folder.version_folder import StateFolder
from embtables.state.format.arrow_writer import OFFSETS
from embtables.state.format.manifest import Manifest
from embtables.state.format.table_files import TOMBSTONES_SCHEMA, layout_of, read_batch, rows_schema

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class _Place:
    """A column: where its values begin in the file, and what they are, `width` a row."""

    offset: int
    dtype: np.dtype[Any]
    width: int | None  # None: one value, without an axis of its own


class TableFile:
    """A file of rows or of tombstones.

    Attributes:
        path: for errors.
        rows: how many it has.
        dim, parts: the table's dimension and tensors as of the file; 0 and none of tombstones.
        begins: (1,025,) int64, where each bucket begins.

    Raises:
        StateError: it is missing, not as long as the manifest says, or not what a table would have written. Its
            checksum is not looked at: `StateFolder.verify` does that.
    """

    def __init__(self, state: StateFolder, version: Manifest, name: str, what: Literal["rows", "tombstones"]) -> None:
        state.check_size(version, name)
        self.path: Path = state.folder.path(state.file(version, name))
        self.dim, self.parts = 0, dict[str, bool]()
        rows = version.files[name].rows
        self.rows = -1 if rows is None else rows
        try:
            raw = _mapped(self.path)
        except OSError as error:
            raise StateError(f"cannot be read: {error.strerror}", file=self.path) from error
        schema = TOMBSTONES_SCHEMA
        if what == "rows":
            self.dim, self.parts = layout_of(raw, self.path, version.projection)
            schema = rows_schema(self.dim, self.parts, version.projection)
        batch = read_batch(raw, schema, self.rows, self.path)
        self.begins = self._begins(batch)
        base = pa.py_buffer(raw).address
        self._columns = {field.name: self._place(batch.column(field.name), base, len(raw)) for field in schema}

    @property
    def is_tombstones(self) -> bool:
        """Whether its keys are those that lost their row."""
        return not self.parts

    def _begins(self, batch: pa.RecordBatch) -> npt.NDArray[np.int64]:
        raw = (batch.schema.metadata or {}).get(OFFSETS, b"")
        begins = np.frombuffer(raw, "<u8") if len(raw) == 8 * (NUM_BUCKETS + 1) else np.zeros(1, np.uint64)
        if len(begins) == 1 or begins[0] != 0 or begins[-1] != self.rows or (begins[1:] < begins[:-1]).any():
            raise StateError(f"does not say where each of {NUM_BUCKETS:,} buckets begins", file=self.path)
        return begins.astype(np.int64)

    def _place(self, column: pa.Array, base: int, size: int) -> _Place:
        wide = pa.types.is_fixed_size_list(column.type)
        values = column.values if wide else column
        place = _Place(values.buffers()[1].address - base, values.type.to_pandas_dtype(), self.dim if wide else None)
        end = place.offset + len(values) * np.dtype(place.dtype).itemsize
        if self.rows and not 0 <= place.offset <= end <= size:
            raise StateError("is damaged: a column lies beyond its end", file=self.path)
        return place

    def row_bytes(self, name: str) -> int:
        """Bytes of one row's values of a column."""
        place = self._columns[name]
        return np.dtype(place.dtype).itemsize * (place.width or 1)

    def read(self, name: str, start: int, stop: int) -> Array:
        """Values of a column, of the rows [start, stop): (n,) or (n, D). Raises StateError where the disk fails."""
        place = self._columns[name]
        shape = (stop - start,) if place.width is None else (stop - start, place.width)
        found = np.empty(shape, place.dtype)
        view = found.reshape(-1).view(np.uint8).data
        at = place.offset + start * self.row_bytes(name)
        try:
            handle = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                while len(view):
                    got = os.preadv(handle, [view], at)
                    if got == 0:
                        raise StateError("is damaged: it ends before its last row", file=self.path)
                    view, at = view[got:], at + got
            finally:
                os.close(handle)
        except OSError as error:
            raise StateError(f"cannot be read: {error.strerror}", file=self.path) from error
        return found


def _mapped(path: Path) -> memoryview:
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            return memoryview(b"")
        return memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))

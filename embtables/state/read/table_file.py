"""`TableFile`: columns of a table's Arrow file by range of rows, so that no file has to be in memory whole."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embtables.errors import StateError
from embtables.state.folder.version_folder import StateFolder
from embtables.state.format.manifest import Manifest
from embtables.state.format.table_files import read_layout
from embtables.state.format.weight_dtype import WeightDtype
from embtables.state.read.range_reader import KeptBlocks, RangeReader

Array = npt.NDArray[Any]
_MAP_NORESERVE = 0x4000  # Linux; the mmap module of Python 3.11 has no name for it


class TableFile:
    """A file of rows, waiting keys, tombstones or the sketch.

    Args:
        schema: the columns that it has to have; None: those of rows of some dimension and optimizer.
        kept: see RangeReader.
        dtype: of the weights in a file of rows; `read` gives what is stored of them.

    Attributes:
        path: what the file is called in errors.
        begins: (1,025,) int64, where each bucket begins among its rows.
        format, row_columns: how the columns of rows lie, and which there are, True: D values per row; None and none
            where it holds no rows.

    Raises:
        StateError: it is missing, damaged where it says how it is laid out, or not what a table would have written.
    """

    def __init__(
        self,
        state: StateFolder,
        version: Manifest,
        name: str,
        schema: pa.Schema | None,
        kept: KeptBlocks | None = None,
        dtype: WeightDtype = "fp32",
    ) -> None:
        self._reader = reader = RangeReader(state, version, name, kept)
        self.path = reader.path
        try:
            raw = _sparse(reader.size)
        except OSError as error:
            raise StateError(f"cannot be read: {error.strerror}", file=self.path) from error

        def need(first: int, end: int) -> None:
            reader.check_range(first, end)
            reader.read_into(first, raw[first:end])

        kind = version.projection, dtype
        layout = read_layout(raw, need, schema, kind, version.files[name], self.path)
        self._places = layout.places
        self.begins = layout.begins
        self.format, self.row_columns = layout.format, layout.row_columns

    @property
    def rows(self) -> int:
        """How many there are."""
        return int(self.begins[-1])

    def row_bytes(self, name: str) -> int:
        """Bytes of one row's values of a column."""
        place = self._places[name]
        return place.dtype.itemsize * (place.width or 1)

    def empty(self, name: str, rows: int) -> Array:
        """Memory for so many values of a column: (n,) or (n, D)."""
        place = self._places[name]
        return np.empty((rows,) if place.width is None else (rows, place.width), place.dtype)

    def read(self, name: str, start: int, stop: int) -> Array:
        """Values of a column, of the rows [start, stop): (n,) or (n, D). Raises as `read_into`."""
        found = self.empty(name, stop - start)
        self.read_into(name, start, found)
        return found

    def read_into(self, name: str, start: int, out: Array) -> None:
        """Fills contiguous memory, (n,) or (n, D), with a column's values from row `start` on.

        Raises:
            StateError: a block that this takes cannot be read or is damaged.
        """
        if out.size:
            at = self._places[name].offset + start * self.row_bytes(name)
            self._reader.read_into(at, out.reshape(-1).view(np.uint8).data)


def _sparse(size: int) -> memoryview:
    """Zeros of which only what is written to takes memory: they may be more than the machine has."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
    return memoryview(mmap.mmap(-1, max(1, size), flags=flags))[:size]

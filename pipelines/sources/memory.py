"""`MemorySource`: a table in memory as the files of a log, so that the reader, its order and its errors stay the same.

A table is read as the parquet file that pandas or pyarrow would write of it by default: row groups of 1,048,576 rows.
So a run over a DataFrame has the same figures, bit for bit, as one over that file. Parts that are given apart (train,
validation, test) are a file each, as with `data.parts`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from embtables.arrow.types import is_list, is_text, plain, stored_column
from embtables.errors import ConfigError, DataError
from embtables.frames.table import Frame, as_table
from embtables.given import as_path
from embtables.pipelines.sources.checksums import checksum
from embtables.pipelines.sources.files.source import LogFile, Source

MEMORY = "memory://DataFrame"
"""`data.path` of a run over a table in memory."""

PARTS = ("train", "validation", "test")
ROW_GROUP_ROWS = 1_048_576


class MemorySource(Source):
    """Tables in memory; each is a file by the name of `<DataFrame>`.

    Args:
        tables: by the name of their part; None: one table, which is not divided yet.
    """

    def __init__(self, tables: Mapping[str | None, pa.Table]) -> None:
        super().__init__(files=[], partitions={})
        self._tables: dict[str, pa.Table] = {}
        self._checksums: dict[str, dict[str, str]] = {}
        for part, table in tables.items():
            name = "<DataFrame>" if part is None else f"<DataFrame {part}>"
            self._tables[name] = table
            starts = range(0, table.num_rows, ROW_GROUP_ROWS)
            groups = [(min(ROW_GROUP_ROWS, table.num_rows - start), ROW_GROUP_ROWS) for start in starts]
            self.files.append(LogFile(name, name, table.nbytes, tuple(groups), table.schema, {}, part=part))

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts, if they were given apart."""
        return tuple(file.part for file in self.files if file.part is not None)

    def _read(self, file: LogFile, row_groups: Sequence[int], names: list[str]) -> pa.Table:
        """Slices of the table, without a copy."""
        tops = dict.fromkeys(stored_column(file.schema, name) or name for name in names)  # of a struct's field
        stored = self._tables[file.path].select(list(tops))
        return pa.concat_tables([stored.slice(group * ROW_GROUP_ROWS, ROW_GROUP_ROWS) for group in row_groups])

    def checksums(self, file: LogFile) -> dict[str, str]:
        """See Source. The values are read once."""
        if file.path not in self._checksums:
            table = self._tables[file.path]
            self._checksums[file.path] = {name: checksum(table.column(name)) for name in table.column_names}
        return self._checksums[file.path]

    def distinct_text(self, column: str, separator: str | None) -> pa.Array | None:
        """The distinct strings of a column, of its lists too; None if it holds something else.

        Args:
            separator: splits a string into several.
        """
        found = [table.column(column) for table in self._tables.values() if column in table.column_names]
        chunks = [chunk for each in found for chunk in each.chunks]
        chunks = [plain(pc.list_flatten(chunk) if is_list(chunk.type) else chunk) for chunk in chunks]
        if not chunks or not is_text(chunks[0].type):
            return None
        values = _text(pa.chunked_array([pc.cast(chunk, pa.large_binary()) for chunk in chunks]).unique())
        if separator is not None:
            values = pc.list_flatten(pc.split_pattern(values, separator)).unique()
        return values.drop_null()


def _text(values: pa.Array) -> pa.Array:
    """Those of some bytes that are UTF-8; others are no text, and have no name."""
    try:
        return values.cast(pa.large_string())
    except pa.ArrowInvalid:
        kept = []
        for value in values.to_pylist():
            with contextlib.suppress(UnicodeDecodeError):
                kept.append(None if value is None else value.decode())
        return pa.array(kept, pa.large_string())


def memory_source(data: Frame) -> MemorySource:
    """A table, or a dictionary of a table for each part.

    Raises:
        DataError: it is no table, or a table without rows.
        ConfigError: the parts lack `train`.
    """
    if isinstance(data, Mapping) and data and set(data) <= set(PARTS):
        if "train" not in data:
            raise ConfigError(f"'data' has the parts {', '.join(data)}, but no 'train'")
        tables: dict[str | None, pa.Table] = {part: as_table(data[part], part) for part in PARTS if part in data}
    else:
        tables = {None: as_table(data)}
    for part, table in tables.items():
        if not table.num_rows:
            raise DataError("holds no rows", table=part or "data")
    return MemorySource(tables)


def source_of(data: Frame | Path | str | None) -> MemorySource | None:
    """Rows in memory as a source; None for a path, or for nothing. Raises DataError as `memory_source`."""
    if isinstance(data, str | Path):
        as_path(data, "data")
        return None
    return None if data is None else memory_source(data)


def schema_of(source: Source) -> dict[str, Any]:
    """Names and Arrow types of a source's columns."""
    return {field.name: field.type for field in source.files[0].schema}

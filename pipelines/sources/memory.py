"""`MemorySource`: a table in memory as the files of a log, so that the reader, its order and its errors stay the same.

A table is read as the parquet file that pandas or pyarrow would write of it by default: row groups of 1,048,576 rows.
So a run over a DataFrame has the same figures, bit for bit, as one over that file. Parts that are given apart (train,
validation, test) are a file each, and a split by the column `PART` that their folders seem to give.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from embtables.errors import ConfigError, DataError
from embtables.frames.table import Frame, as_table
from embtables.inputs.columns import is_list, is_text
from embtables.pipelines.sources.files import LogFile, Source

MEMORY = "memory://DataFrame"
"""`data.path` of a run over a table in memory."""

PART = "part of the data"
"""The column that names the part of a row, where the parts are given apart; no column of a user's has this name."""

PARTS = ("train", "validation", "test")
ROW_GROUP_ROWS = 1_048_576


@dataclass(frozen=True, slots=True)
class _RowGroup:
    num_rows: int


@dataclass(frozen=True, slots=True)
class _Footer:
    """What the reader asks a parquet footer for."""

    num_rows: int

    @property
    def num_row_groups(self) -> int:
        return -(-self.num_rows // ROW_GROUP_ROWS)

    def row_group(self, number: int) -> _RowGroup:
        first = number * ROW_GROUP_ROWS
        return _RowGroup(min(ROW_GROUP_ROWS, self.num_rows - first))


class MemorySource(Source):
    """Tables in memory; each is a file by the name of `<DataFrame>`.

    Args:
        tables: by the name of their part; None: one table, which is not divided yet.
    """

    def __init__(self, tables: Mapping[str | None, pa.Table]) -> None:
        super().__init__(filesystem=None, files=[])
        self._tables: dict[str, pa.Table] = {}
        for part, table in tables.items():
            name = "<DataFrame>" if part is None else f"<DataFrame {part}>"
            self._tables[name] = table
            partition: dict[str, int | str] = {} if part is None else {PART: part}
            self.files.append(LogFile(name, _Footer(table.num_rows), table.schema, partition))

    @property
    def has_parts(self) -> bool:
        """Whether the parts were given apart."""
        return any(file.partition for file in self.files)

    def read(self, file: LogFile, row_groups: list[int], columns: list[str]) -> pa.Table:
        """See Source: slices of the table, without a copy."""
        stored = self._tables[file.path].select([name for name in columns if name not in file.partition])
        table = pa.concat_tables([stored.slice(group * ROW_GROUP_ROWS, ROW_GROUP_ROWS) for group in row_groups])
        rows = sum(file.metadata.row_group(group).num_rows for group in row_groups)
        for name in columns:
            if name in file.partition:
                values = pa.array([file.partition[name]] * rows)
                # A table without columns has no rows.
                table = table.append_column(name, values) if table.num_columns else pa.table({name: values})
        return table

    def distinct_text(self, column: str, separator: str | None) -> pa.Array | None:
        """The distinct strings of a column, of its lists too; None if it holds something else.

        Args:
            separator: splits a string into several.
        """
        found = [table.column(column) for table in self._tables.values() if column in table.column_names]
        chunks = [chunk for each in found for chunk in each.chunks]
        chunks = [pc.list_flatten(chunk) if is_list(chunk.type) else chunk for chunk in chunks]
        if not chunks or not is_text(chunks[0].type):
            return None
        values = pa.chunked_array([pc.cast(chunk, pa.large_string()) for chunk in chunks]).unique()
        if separator is not None:
            values = pc.list_flatten(pc.split_pattern(values, separator)).unique()
        return values.drop_null()


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


def schema_of(source: Source) -> dict[str, Any]:
    """Names and Arrow types of a source's columns."""
    return {field.name: field.type for field in source.files[0].schema}

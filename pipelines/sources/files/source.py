"""The parquet files of a log, their footers read once, and the reading of their row groups."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from embtables.arrow.one_type import cast, one_type
from embtables.arrow.types import field_type, plain, plain_type, stored_column, take_column
from embtables.errors import BadFileError, DataError
from embtables.pipelines.sources.files.formats import managed_files
from embtables.pipelines.sources.files.listing import list_files
from embtables.pipelines.sources.files.partitions import partition_column, partition_type, partition_values
from embtables.schema import PartitionType

# A row group is read whole. A megabyte of parquet can hold 200 million zeros: the footer is asked before memory is.
MAX_ROW_GROUP_ROWS = 10_000_000
# INT96 has nanoseconds of a day and a day: as int64 nanoseconds it would wrap in 2262 and before 1677.
INT96_UNIT = "us"


@dataclass(frozen=True)
class LogFile:
    """One parquet file: its path and footer, the text that its hive folders give, and the part it is of, if any.

    Attributes:
        relative: its path below the log's root, which names it wherever the log is moved to.
        size: in bytes.
        groups: (rows, bytes when uncompressed) of each row group.
    """

    path: str
    relative: str
    size: int
    groups: tuple[tuple[int, int], ...]
    schema: pa.Schema
    partition: Mapping[str, str | None]
    filesystem: Any = None
    metadata: Any = None
    part: str | None = None

    @property
    def num_rows(self) -> int:
        """Rows of the file."""
        return sum(rows for rows, _ in self.groups)

    @property
    def column_names(self) -> list[str]:
        """Columns of the file and of its folders."""
        return [*self.schema.names, *(name for name in self.partition if name not in self.schema.names)]

    @contextmanager
    def opened(self, *, pre_buffer: bool) -> Iterator[pq.ParquetFile]:
        """The file, to read its pages.

        Args:
            pre_buffer: whether what is read of it is fetched at once, which is faster and holds it in memory.

        Raises:
            BadFileError: a page that is read is damaged.
        """
        try:
            with self.filesystem.open_input_file(self.path) as handle:
                yield pq.ParquetFile(
                    handle,
                    metadata=self.metadata,
                    pre_buffer=pre_buffer,
                    page_checksum_verification=True,
                    coerce_int96_timestamp_unit=INT96_UNIT,
                )
        except (pa.ArrowException, OSError, ValueError) as error:
            raise BadFileError(_reason(str(error)), file=self.path) from error


@dataclass(frozen=True, slots=True)
class Chunk:
    """A row group: the unit of reading."""

    file: int
    row_group: int
    rows: int
    first_row: int


def chunks_of(number: int, file: LogFile) -> list[Chunk]:
    """Row groups of the file with this number among a source's, empty ones left out."""
    found, first = [], 0
    for group, (rows, _) in enumerate(file.groups):
        if rows:
            found.append(Chunk(number, group, rows, first))
        first += rows
    return found


@dataclass
class Source:
    """Listed files with readable footers; files that were set aside are in `bad_files` with the reason.

    Args:
        partitions: types of columns that folders give; others are text.
        missing_is_null: whether a column that only some files have is null in the others.
    """

    files: list[LogFile]
    partitions: Mapping[str, PartitionType]
    missing_is_null: bool = False
    bad_files: dict[str, str] = field(default_factory=dict)
    _types: dict[tuple[str, bool], pa.DataType] = field(default_factory=dict)

    def checksums(self, file: LogFile) -> dict[str, str] | None:
        """Of a table in memory, the checksum of each column; None of a file, which its footer is known by."""
        return None

    @property
    def partition_names(self) -> set[str]:
        """Columns that folders give."""
        return {name for file in self.files for name in file.partition}

    @property
    def column_names(self) -> list[str]:
        """The columns that any of the files has, in order of their first appearance."""
        return list(dict.fromkeys(name for file in self.files for name in file.column_names))

    def column_type(self, name: str, *, ids: bool = False) -> pa.DataType:
        """The plain type that a column has for the whole log.

        Args:
            ids: whether its values are ids or keys.

        Raises:
            DataError: a file lacks it, or holds it as something that is not the same column as another's.
        """
        if (name, ids) not in self._types:
            found = []
            for file in self.files:
                kind = self._type_in(file, name)
                if kind is not None:
                    found.append((kind, file.path))
                elif not self.missing_is_null:
                    raise self._missing(file, name)
            if not found:
                raise self._missing(self.files[0], name)
            self._types[name, ids] = one_type(name, found, ids=ids)
        return self._types[name, ids]

    def _type_in(self, file: LogFile, name: str) -> pa.DataType | None:
        if name in file.partition:
            return partition_type(self.partitions, name)
        try:
            kind = field_type(file.schema, name)
        except DataError as error:
            raise DataError(error.message, file=file.path, column=name) from None
        return None if kind is None else plain_type(kind)

    def _missing(self, file: LogFile, name: str) -> DataError:
        hint = "; if only some files lack it, set data.on_missing_column: null" if len(self.files) > 1 else ""
        return DataError(f"is missing; the file has: {', '.join(file.column_names)}{hint}", file=file.path, column=name)

    def read(self, file: LogFile, row_groups: Sequence[int], columns: Mapping[str, pa.DataType]) -> pa.Table:
        """Row groups of a file: the named columns in the given types, those of folders included.

        Raises:
            BadFileError: the pages are damaged; names the file. DataError: a value does not fit its column's type.
        """
        wanted = {name: stored_column(file.schema, name) for name in columns if name not in file.partition}
        rows = sum(file.groups[group][0] for group in row_groups)
        names = list(dict.fromkeys(_leaf(file.schema, name, top) for name, top in wanted.items() if top is not None))
        table = self._read(file, row_groups, names) if names else pa.table({"": pa.nulls(rows)})
        if table.num_rows != rows:
            raise BadFileError(
                _reason(f"it holds {table.num_rows:,} rows where its footer says {rows:,}"), file=file.path
            )
        if not columns:
            return table  # row counts alone
        arrays = [self._column(file, table, name, kind) for name, kind in columns.items()]
        return pa.table(arrays, names=list(columns))

    def read_all(self, columns: Sequence[str], *, ids: Collection[str] = ()) -> pa.Table:
        """All rows of all files, in their order. `ids`: which of the columns hold ids or keys."""
        kinds = {name: self.column_type(name, ids=name in ids) for name in dict.fromkeys(columns)}
        return pa.concat_tables([self.read(file, range(len(file.groups)), kinds) for file in self.files])

    def _column(self, file: LogFile, table: pa.Table, name: str, kind: pa.DataType) -> Any:
        if name in file.partition:
            found = partition_column(self.partitions, name, file.partition[name], table.num_rows, file.path)
            return cast(pa.chunked_array([found]), kind, name=name, file=file.path)
        place = table.schema.get_field_index(name)
        if place >= 0 and table.schema.field(place).type == kind:
            return table.column(place)
        column = take_column(table, name)
        if column is None:
            return pa.chunked_array([pa.nulls(table.num_rows, kind)])
        return cast(plain(column), kind, name=name, file=file.path)

    def _read(self, file: LogFile, row_groups: Sequence[int], names: list[str]) -> pa.Table:
        with file.opened(pre_buffer=True) as parquet:
            return parquet.read_row_groups(list(row_groups), columns=names, use_threads=True)


def _leaf(schema: pa.Schema, name: str, top: str) -> str:
    """What parquet calls a column: of a struct's field its path, so that the other fields are not read."""
    inner = schema.field(schema.get_all_field_indices(top)[0]).type
    return name if name == top or pa.types.is_struct(inner) else top


def open_source(
    path: str,
    files: str,
    *,
    quarantine: bool,
    partitions: Mapping[str, PartitionType] | None = None,
    missing_is_null: bool = False,
    part: str | None = None,
) -> Source:
    """Finds the parquet files at `path` and reads their footers.

    Args:
        files: glob below a folder.
        quarantine: whether a file that cannot be read is set aside.
        partitions, missing_is_null: see Source.
        part: of the log that all of them belong to.

    Raises:
        DataError: there is nothing. BadFileError: a footer is damaged and `quarantine` is off.
    """
    listing = list_files(path, files)
    managed = managed_files(listing, path)
    paths = listing.paths if managed is None else managed.paths
    if not paths:
        raise DataError("holds no rows" if managed else f"holds no file that matches '{files}'", path=path)
    declared = {**(managed.types if managed is not None else {}), **(partitions or {})}
    source = Source([], declared, missing_is_null)

    def footer(found: str) -> LogFile | str:
        relative = listing.relative(found)
        values = partition_values(relative) if managed is None else managed.partitions[found]
        return _footer(listing.filesystem, found, relative, values, part)

    with ThreadPoolExecutor(8) as pool:
        for found, result in zip(paths, pool.map(footer, paths), strict=True):
            if isinstance(result, LogFile):
                source.files.append(result)
            elif quarantine:
                source.bad_files[found] = result
            else:
                raise BadFileError(result, file=found)
    if not source.files:
        raise DataError("no readable parquet file is left", path=path)
    return source


def _footer(
    filesystem: Any, path: str, relative: str, partition: Mapping[str, str | None], part: str | None
) -> LogFile | str:
    try:
        with filesystem.open_input_file(path) as handle:
            size = handle.size()
            parquet = pq.ParquetFile(handle, coerce_int96_timestamp_unit=INT96_UNIT)
            metadata = parquet.metadata
            groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
            largest = max((group.num_rows for group in groups), default=0)
            if largest > MAX_ROW_GROUP_ROWS:
                limit = f"at most {MAX_ROW_GROUP_ROWS:,}; write it again with row groups of about 100,000"
                return f"has a row group of {largest:,} rows, which is read whole: {limit}"
            sizes = tuple((group.num_rows, group.total_byte_size) for group in groups)
            return LogFile(path, relative, size, sizes, parquet.schema_arrow, partition, filesystem, metadata, part)
    except (pa.ArrowException, OSError, ValueError) as error:
        return _reason(str(error))


def _reason(text: str) -> str:
    hint = "replace it; in training, data.on_bad_file: quarantine sets such files of the log aside"
    return f"cannot be read as parquet: {' '.join(text.split())}; {hint}"

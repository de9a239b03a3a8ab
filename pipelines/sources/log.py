"""`Log`: an opened log. Its files, side tables and filters, and how a block of it becomes rows.

    chunks (row groups) --seeded order, grouped--> blocks --read, join, where, split--> rows of a part

A block is a run of chunks in the epoch's order with as many rows as `data.block_rows` (when shuffling:
`shuffle.buffer_rows`), at least one chunk. The order depends on footers, seed and epoch only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from embtables.errors import BadFileError, DataError
from embtables.inputs.features import FittedTransforms, TransformFitter
from embtables.inputs.values import BadRowsError, Int64s, one_array, usable_numbers
from embtables.inputs.where import condition_mask
from embtables.pipelines.sources.files.partitions import id_columns, partition_types
from embtables.pipelines.sources.files.record import FilesRead, file_name, record_of
from embtables.pipelines.sources.files.source import Chunk, LogFile, Source, chunks_of, open_source
from embtables.pipelines.sources.rows.join import SideTable, side_tables
from embtables.pipelines.sources.rows.split import BadRows, LogPart, part_mask, split_columns
from embtables.schema import HashSplit, LogConfig, Schema

BlockChunks = tuple[Chunk, ...]


@dataclass(frozen=True)
class LogRows:
    """Filtered rows of a block: the table, and for each row its number in the unfiltered block.

    Attributes:
        segments: (file, first row within it, rows read).
        bad: rows of the table for which no part could be found; they are dealt with the training part's, as bad ones.
    """

    table: pa.Table
    numbers: Int64s
    segments: tuple[tuple[str, int, int], ...]
    bad: tuple[BadRows, ...] = ()

    def origin(self, row: int) -> tuple[str, int]:
        """(file, row within the file) of a row of `table`."""
        number = int(self.numbers[row])
        for file, first, count in self.segments:
            if number < count:
                return file, first + number
            number -= count
        raise AssertionError("a row beyond the block")


class Log:
    """An opened log; reads footers and side tables once.

    Args:
        schema: what rows are read for: columns that transforms are fitted on, and the time that a split may go by.
        data: where the files are, which rows count, and in what order they come.
        source: the files, if they are opened already.

    Raises:
        DataError, BadFileError, ConfigError: see `open_source`, `side_tables`, `condition_mask`.
    """

    def __init__(self, schema: Schema, data: LogConfig, source: Source | None = None) -> None:
        self.schema = schema
        self.data = data
        self._source = source or _open(schema, data)
        self._sides = side_tables(data.join, self._source)
        self._joined = {name for side in self._sides for name in side.columns}
        keys = {join.key for join in data.join}
        self._ids = id_columns(schema) | keys | set(data.split.columns if isinstance(data.split, HashSplit) else ())
        self._numbers = {file_name(file): number for number, file in enumerate(self._source.files)}

    @property
    def bad_files(self) -> dict[str, str]:
        """Files that were set aside, with the reason."""
        return dict(self._source.bad_files)

    @property
    def files(self) -> list[LogFile]:
        """The files, in their order."""
        return list(self._source.files)

    @property
    def num_rows(self) -> int:
        """Rows of all files, before any filter."""
        return sum(file.num_rows for file in self._source.files)

    @property
    def source(self) -> Source:
        """The files as they were listed."""
        return self._source

    @property
    def side_tables(self) -> list[SideTable]:
        """What is joined to it, in this order."""
        return list(self._sides)

    def column_type(self, name: str) -> pa.DataType | None:
        """The plain type of a column for the whole log; None for a side table's.

        Raises:
            DataError: a file lacks it, or holds it as something that is not the same column as another's.
        """
        if name in self._joined:
            return None
        return self._source.column_type(name, ids=name in self._ids)

    def filter_columns(self, part: LogPart | None) -> tuple[str, ...]:
        """The columns that decide whether a row belongs to a part."""
        data = self.data
        split = split_columns(data.split, self.schema.event_time) if part is not None else ()
        return tuple(dict.fromkeys((*(c.column for c in data.where), *split)))

    def record(self, part: LogPart | None, *, checksums: bool = True) -> FilesRead:
        """The files that an epoch of a part reads, as they are now.

        Args:
            checksums: whether tables in memory are known by their values, which are all read for it.
        """
        files = [self._source.files[number] for number in self._files_of(part)]
        return record_of(files, self._source.checksums if checksums else lambda _: None)

    def _files_of(self, part: LogPart | None) -> list[int]:
        """Numbers of the files that may hold rows of a part."""
        apart = self.data.parts is not None and part is not None
        return [number for number, file in enumerate(self._source.files) if not apart or file.part == part]

    def blocks(
        self, epoch: int, seed: int | None, part: LogPart | None = None, files: FilesRead | None = None
    ) -> list[BlockChunks]:
        """The epoch's blocks in order.

        Args:
            seed: None: files in their order.
            part: whose files; None: all.
            files: those that the epoch began with; by default the present ones.
        """
        batches = [self._files_of(part)]
        if files is not None:
            batches = [[self._numbers[file.name] for file in batch] for batch in files.batches]
        data = self.data
        blocks: list[BlockChunks] = []
        for numbers in batches:
            chunks = [chunk for number in numbers for chunk in chunks_of(number, self._source.files[number])]
            limit = data.block_rows
            if seed is not None and data.shuffle is not None:
                order = np.random.default_rng([seed, data.shuffle.seed, epoch]).permutation(len(chunks))
                chunks, limit = [chunks[i] for i in order], data.shuffle.buffer_rows
            blocks += _grouped(chunks, limit)
        return blocks

    def check(self, columns: Sequence[str]) -> None:
        """Raises DataError if a file lacks one of the columns or holds it as another type than the others."""
        self._looked_up(columns)

    def _looked_up(self, columns: Sequence[str]) -> tuple[list[SideTable], dict[str, pa.DataType]]:
        """The side tables that columns come from, and the stored columns, their keys included, by type."""
        sides = [side for side in self._sides if set(side.columns) & set(columns)]
        stored = [*(name for name in columns if name not in self._joined), *(side.join.key for side in sides)]
        return sides, {name: self._source.column_type(name, ids=name in self._ids) for name in dict.fromkeys(stored)}

    def without_rows(self, columns: Sequence[str]) -> tuple[str, pa.Table]:
        """Path of the first file, and a table without rows that has the columns with their types, by footers alone.

        Raises:
            DataError: see `check`; or a side table's key has another type.
        """
        sides, kinds = self._looked_up(columns)
        table = pa.schema(list(kinds.items())).empty_table()
        for side in sides:
            table = side.add_to(table)
        return self._source.files[0].path, table

    def rows(self, block: BlockChunks, part: LogPart | None, columns: Sequence[str]) -> LogRows:
        """The rows of a block that belong to `part` (None: all that `where` admits), with the named columns.

        Raises:
            DataError: with `data.on_bad_row: error`, a row for which no part can be found; with file and row.
        """
        needed = tuple(dict.fromkeys((*columns, *self.filter_columns(part))))
        sides, kinds = self._looked_up(needed)
        tables, segments = self._read(block, kinds)
        if not tables:
            return LogRows(pa.table({name: pa.nulls(0) for name in needed}), np.empty(0, np.int64), ())
        table = pa.concat_tables(tables)
        for side in sides:
            table = side.add_to(table)
        rows = LogRows(table, np.arange(table.num_rows), tuple(segments))
        return self._filtered(rows, part)

    def _filtered(self, rows: LogRows, part: LogPart | None) -> LogRows:
        data, table = self.data, rows.table
        if data.split is None and data.parts is None and part not in (None, "train"):
            return LogRows(table.slice(0, 0), rows.numbers[:0], rows.segments)
        if not self.filter_columns(part):
            return rows
        mask = condition_mask(table, data.where)
        bad: list[BadRows] = []
        if part is not None and data.split is not None:
            of_part, bad = part_mask(table, data.split, self.schema.event_time, part)
            bad = [found for each in bad if len(found := each.among(mask)) > 0]
            if bad and data.on_bad_row == "error":
                raise locate(bad[0].error(), rows)
            if part == "train":
                for each in bad:
                    of_part[each.rows] = True
            mask &= of_part
        if not mask.all():
            table = table.filter(pa.array(mask))
        places = np.cumsum(mask) - 1
        kept = tuple(each.at(places) for each in bad) if part == "train" else ()
        return LogRows(table, np.flatnonzero(mask), rows.segments, kept)

    def _read(
        self, block: BlockChunks, kinds: dict[str, pa.DataType]
    ) -> tuple[list[pa.Table], list[tuple[str, int, int]]]:
        tables, segments = [], []
        for file_number, groups in _by_file(block):
            file = self._source.files[file_number]
            if file.path in self._source.bad_files:
                continue
            try:
                table = self._source.read(file, [g.row_group for g in groups], kinds)
            except BadFileError as error:
                if self.data.on_bad_file == "error":
                    raise
                self._source.bad_files[file.path] = error.message
                continue
            tables.append(table)
            segments += [(file.path, g.first_row, g.rows) for g in groups]
        return tables, segments

    def count(self, block: BlockChunks, part: LogPart | None) -> int:
        """Rows of a block that belong to a part; reads only the columns that decide it."""
        divided = self.data.split is not None or self.data.parts is not None
        if not self.filter_columns(part) and (part in (None, "train") or divided):
            return sum(chunk.rows for chunk in block)
        return len(self.rows(block, part, ()).numbers)

    def count_rows(self, part: LogPart | None) -> int:
        """Rows of a part, over all blocks."""
        return sum(self.count(block, part) for block in self.blocks(0, None, part))

    def fit_transforms(self, seed: int, most_rows: int | None = None) -> FittedTransforms:
        """Transforms fitted on the training part: one pass over the columns concerned, none if there are none.

        Args:
            most_rows: blocks are read until there were so many rows; by default all.
        """
        fitter = TransformFitter(self.schema, seed)
        if fitter.columns:
            dense = {d.column: d for d in self.schema.dense}
            read = 0
            for block in self.blocks(0, None, "train"):
                if most_rows is not None and read >= most_rows:
                    break
                rows = self.rows(block, "train", fitter.columns)
                read += len(rows.numbers)
                fitter.add(
                    {
                        name: usable_numbers(name, one_array(rows.table.column(name)), dense.get(name))
                        for name in fitter.columns
                    }
                )
        return fitter.result()


def _open(schema: Schema, data: LogConfig) -> Source:
    """The files of the log; of one whose parts lie apart, those of every part."""
    if data.parts is None:
        assert data.path is not None
        paths: list[tuple[str | None, str]] = [(None, data.path)]
    else:
        paths = list(data.parts.given().items())
    whole, *others = (
        open_source(
            path,
            data.files,
            quarantine=data.on_bad_file == "quarantine",
            partitions=partition_types(schema, data),
            missing_is_null=data.on_missing_column == "null",
            part=part,
        )
        for part, path in paths
    )
    for other in others:
        whole.files.extend(other.files)
        whole.bad_files.update(other.bad_files)
        whole.partitions = {**other.partitions, **whole.partitions}
    return whole


def _grouped(chunks: Sequence[Chunk], limit: int) -> list[BlockChunks]:
    """Neighbouring chunks in blocks of at most so many rows, at least one chunk each."""
    blocks: list[BlockChunks] = []
    current: list[Chunk] = []
    rows = 0
    for chunk in chunks:
        if current and rows + chunk.rows > limit:
            blocks.append(tuple(current))
            current, rows = [], 0
        current.append(chunk)
        rows += chunk.rows
    return [*blocks, tuple(current)] if current else blocks


def _by_file(block: BlockChunks) -> list[tuple[int, list[Chunk]]]:
    """Neighbouring chunks of one file together."""
    runs: list[tuple[int, list[Chunk]]] = []
    for chunk in block:
        if runs and runs[-1][0] == chunk.file:
            runs[-1][1].append(chunk)
        else:
            runs.append((chunk.file, [chunk]))
    return runs


def locate(error: BadRowsError, rows: LogRows) -> DataError:
    """The fault with its file and row."""
    file, row = rows.origin(int(error.rows[0]))
    others = f" ({len(error.rows):,} such rows in the block)" if len(error.rows) > 1 else ""
    hint = "; or set data.on_bad_row: quarantine to set such rows aside"
    return DataError(error.message + others + hint, file=file, column=error.column, row=row)

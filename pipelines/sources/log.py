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

from embtables.errors import BadFileError, ConfigError, DataError
from embtables.inputs.columns import BadRowsError, Int64s, as_float64, one_array
from embtables.inputs.features import FeatureTransform, FittedTransforms, TransformFitter
from embtables.pipelines.sources.files import Chunk, check_columns, open_source, unify
from embtables.pipelines.sources.join import SideTable
from embtables.pipelines.sources.split import LogPart, part_mask, split_columns
from embtables.pipelines.sources.where import condition_mask
from embtables.schema import LogConfig, Schema

BlockChunks = tuple[Chunk, ...]


@dataclass(frozen=True)
class LogRows:
    """Filtered rows of a block: the table, and for each row its number in the unfiltered block."""

    table: pa.Table
    numbers: Int64s
    segments: tuple[tuple[str, int, int], ...]  # file, first row within it, rows read

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

    Raises:
        DataError, BadFileError, ConfigError: see `open_source`, `SideTable`, `condition_mask`.
    """

    def __init__(self, schema: Schema, data: LogConfig) -> None:
        self.schema = schema
        self.data = data
        self._source = open_source(data.path, data.files, quarantine=data.on_bad_file == "quarantine")
        self._sides = [SideTable(join) for join in data.join]
        self._chunks = self._source.chunks()
        self._joined = {name for side in self._sides for name in side.columns}
        self._checked: set[str] = set()

    @property
    def bad_files(self) -> dict[str, str]:
        """Files that were set aside, with the reason."""
        return dict(self._source.bad_files)

    @property
    def num_rows(self) -> int:
        """Rows of all files, before any filter."""
        return sum(chunk.rows for chunk in self._chunks)

    @property
    def stored_columns(self) -> list[str]:
        """Columns of the log's first file and its folders, without those of side tables."""
        return self._source.files[0].column_names

    def filter_columns(self, part: LogPart | None) -> tuple[str, ...]:
        """The columns that decide whether a row belongs to a part."""
        data = self.data
        split = split_columns(data.split, self.schema.event_time) if part is not None else ()
        return tuple(dict.fromkeys((*(c.column for c in data.where), *split)))

    def blocks(self, epoch: int, seed: int | None) -> list[BlockChunks]:
        """The epoch's blocks in order; `seed` None: files in path order."""
        data = self.data
        chunks, limit = self._chunks, data.block_rows
        if seed is not None and data.shuffle is not None:
            order = np.random.default_rng([seed, data.shuffle.seed, epoch]).permutation(len(chunks))
            chunks, limit = [chunks[i] for i in order], data.shuffle.buffer_rows
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

    def check(self, columns: Sequence[str]) -> None:
        """Raises DataError if a file lacks one of the columns or holds it as another type than the others."""
        wanted = [name for name in columns if name not in self._joined and name not in self._checked]
        keys = [join.key for join in self.data.join if self._joined & set(columns)]
        check_columns(self._source.files, list(dict.fromkeys([*wanted, *keys])))
        self._checked.update(wanted)

    def without_rows(self, columns: Sequence[str]) -> tuple[str, pa.Table]:
        """Path of the first file, and a table without rows that has the columns with their types, by footers alone.

        Raises:
            DataError: see `check`; or a side table's key has another type.
        """
        self.check(columns)
        file = self._source.files[0]
        sides = [(s, j) for s, j in zip(self._sides, self.data.join, strict=True) if set(s.columns) & set(columns)]
        stored = [name for name in columns if name not in self._joined] + [join.key for _, join in sides]
        table = pa.schema([(name, file.column_type(name)) for name in dict.fromkeys(stored)]).empty_table()
        for side, _ in sides:
            table = side.add_to(table)
        return file.path, table

    def rows(self, block: BlockChunks, part: LogPart | None, columns: Sequence[str]) -> LogRows:
        """The rows of a block that belong to `part` (None: all that `where` admits), with the named columns."""
        needed = tuple(dict.fromkeys((*columns, *self.filter_columns(part))))
        self.check(needed)
        sides = [(s, j) for s, j in zip(self._sides, self.data.join, strict=True) if set(s.columns) & set(needed)]
        stored = [name for name in needed if name not in self._joined] + [j.key for _, j in sides]
        tables, segments = self._read(block, list(dict.fromkeys(stored)))
        if not tables:
            return LogRows(pa.table({name: pa.nulls(0) for name in needed}), np.empty(0, np.int64), ())
        table = unify(tables)
        numbers = np.arange(table.num_rows)
        for side, _ in sides:
            table = side.add_to(table)
        if self.filter_columns(part):
            mask = self._mask(table, part)
            if not mask.all():
                table, numbers = table.filter(pa.array(mask)), np.flatnonzero(mask)
        elif part is not None and self.data.split is None and part != "train":
            table, numbers = table.slice(0, 0), numbers[:0]
        return LogRows(table, numbers, tuple(segments))

    def _mask(self, table: pa.Table, part: LogPart | None) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        data = self.data
        for condition in data.where:
            if condition.column not in table.schema.names:
                raise ConfigError(f"data.where names column '{condition.column}', which is not in the log")
        mask = condition_mask(table, data.where)
        if part is not None:
            mask &= part_mask(table, data.split, self.schema.event_time, part)
        return mask

    def _read(self, block: BlockChunks, columns: list[str]) -> tuple[list[pa.Table], list[tuple[str, int, int]]]:
        tables, segments = [], []
        for file_number, groups in _by_file(block):
            file = self._source.files[file_number]
            if file.path in self._source.bad_files:
                continue
            try:
                if not columns:  # row counts alone
                    table = pa.table({"": pa.nulls(sum(g.rows for g in groups))})
                else:
                    table = self._source.read(file, [g.row_group for g in groups], columns)
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
        if not self.filter_columns(part) and (part in (None, "train") or self.data.split is not None):
            return sum(chunk.rows for chunk in block)
        return len(self.rows(block, part, ()).numbers)

    def count_rows(self, part: LogPart | None) -> int:
        """Rows of a part, over all blocks."""
        return sum(self.count(block, part) for block in self.blocks(0, None))

    def fit_transforms(self, seed: int, most_rows: int | None = None) -> FittedTransforms:
        """Transforms fitted on the training part: one pass over the columns concerned, none if there are none.

        Args:
            most_rows: blocks are read until there were so many rows; by default all.
        """
        fitter = TransformFitter(self.schema, seed)
        if fitter.columns:
            fills = {d.column: d.fill_null for d in self.schema.dense}
            read = 0
            for block in self.blocks(0, None):
                if most_rows is not None and read >= most_rows:
                    break
                rows = self.rows(block, "train", fitter.columns)
                read += len(rows.numbers)
                fitter.add({name: _numbers(rows, name, fills.get(name)) for name in fitter.columns})
        return fitter.result()


def _numbers(rows: LogRows, name: str, fill: float | None) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Finite numbers of a column; faults are left out, because the training pass reports or sets them aside."""
    array = one_array(rows.table.column(name))
    array = array.fill_null(fill) if fill is not None and array.null_count else array.drop_null()
    try:
        return as_float64(name, array, fill=None)
    except BadRowsError as error:
        return as_float64(name, array.take(pa.array(np.delete(np.arange(len(array)), error.rows))), fill=None)


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


def column_check(log: Log, transform: FeatureTransform, part: LogPart | None) -> None:
    """Checks all columns that training needs against every file's footer, before the first row is read."""
    log.check([*transform.columns, *log.filter_columns(part)])

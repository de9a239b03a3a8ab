"""The parquet reader: a streamed log -> batches, in a seeded order that does not depend on the number of ranks.

    Log (files, joins, filters) --blocks--> rows --features stage--> Block --dealt to ranks--> Batch + Position

One block is read and converted in a background thread while the batches of the one before are used, so at most two
blocks (of `data.block_rows` or `shuffle.buffer_rows` rows, and of at least one row group) are in memory. Every item
carries the position after it; a reader made from that position yields exactly what would have followed, on any number
of ranks. docs/reader.md tells the rules.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from embtables.batch import Batch
from embtables.columns import BadRowsError, Int64s
from embtables.features import Block, FeatureTransform, FittedTransforms, make_batch
from pipelines.reader.deal import Dealer, Share
from pipelines.reader.log import Log, Rows, column_check, locate
from pipelines.reader.position import Position
from pipelines.reader.quarantine import Quarantine
from pipelines.reader.split import Part

__all__ = ["Log", "ParquetReader", "Part", "Position", "ReaderItem"]


@dataclass(frozen=True, slots=True)
class ReaderItem:
    """A batch, the position after it, and the extra columns of its rows (None if none were asked for)."""

    batch: Batch
    position: Position
    extra: pa.Table | None


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A converted block in its order of use. `used[i]`: rows of the block among the first i dealt ones.

    Rows that were set aside keep their place in the deal, so positions mean the same with and without them.
    """

    block: Block
    extra: pa.Table | None
    dealt: int
    used: Int64s | None

    def rows(self, share: Share) -> tuple[int, int]:
        if self.used is None:
            return min(share.start, self.block.num_rows), min(share.stop, self.block.num_rows)
        return int(self.used[min(share.start, self.dealt)]), int(self.used[min(share.stop, self.dealt)])


class ParquetReader:
    """Iterates once over (the rest of) one epoch of a part of the log.

    Args:
        log: the opened log.
        part: train, validation, test, or None for every row that `where` admits.
        batch_size: rows a batch and rank; only a rank's last batches may hold fewer.
        fitted: transforms fitted on training data.
        seed: of the order; None reads in path order.
        epoch: which order; ignored where a position is given.
        rank, world_size: this reader's share; every rank gets the same number of batches, some perhaps empty.
        position: where to go on.
        extra_columns: log columns handed out beside each batch.
        with_labels: false for prediction.
        quarantine_dir: where bad rows are listed, with `data.on_bad_row: quarantine`.

    Raises (on iteration):
        DataError: with file, column and row. BadFileError: with the file.
    """

    def __init__(
        self,
        log: Log,
        part: Part | None,
        *,
        batch_size: int,
        fitted: FittedTransforms,
        seed: int | None = None,
        epoch: int = 0,
        rank: int = 0,
        world_size: int = 1,
        position: Position | None = None,
        extra_columns: Sequence[str] = (),
        with_labels: bool = True,
        quarantine_dir: Path | None = None,
    ) -> None:
        self._log = log
        self._part = part
        self._batch_size = batch_size
        self._seed = seed
        self._rank = rank
        self._world_size = world_size
        self._start = position if position is not None else Position(epoch)
        self._extra = tuple(extra_columns)
        self._transform = FeatureTransform(log.schema, fitted, with_labels=with_labels)
        self._blocks = log.blocks(self._start.epoch, seed)
        self._futures: dict[int, Future[_Loaded]] = {}
        self.quarantine = Quarantine(quarantine_dir)
        column_check(log, self._transform, part)
        log.check(self._extra)

    @property
    def total_rows_hint(self) -> int:
        """Rows of the log, before filters: an upper bound for progress bars."""
        return self._log.num_rows

    def __iter__(self) -> Generator[ReaderItem, None, None]:
        pool = ThreadPoolExecutor(1, thread_name_prefix="embtables-reader")
        try:
            yield from self._items(pool)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            self._futures.clear()

    def _items(self, pool: ThreadPoolExecutor) -> Iterator[ReaderItem]:
        rows_of = self._dealt_rows(pool)
        dealer = Dealer(len(self._blocks), rows_of, self._batch_size, self._world_size, self._start)
        for step, position in dealer.steps():
            shares = step[self._rank]
            loaded = [self._block(pool, share.block) for share in shares]
            parts = [(lo.block, *lo.rows(s)) for lo, s in zip(loaded, shares, strict=True)]
            if not parts:
                parts = [(self._transform.empty(), 0, 0)]
            batch = make_batch(self._transform.names, parts)
            extra = self._extra_rows(loaded, parts) if self._extra else None
            self._forget(position, shares)
            yield ReaderItem(batch, position, extra)

    def _dealt_rows(self, pool: ThreadPoolExecutor) -> Callable[[int], int]:
        """Rows of a block for the deal: known by loading it, or, with other ranks, by counting."""
        if self._world_size > 1:
            return lambda block: self._log.count(self._blocks[block], self._part)

        def load(block: int) -> int:
            rows = self._block(pool, block).dealt
            if block + 1 < len(self._blocks):
                self._submit(pool, block + 1)
            return rows

        return load

    def _submit(self, pool: ThreadPoolExecutor, block: int) -> Future[_Loaded]:
        if block not in self._futures:
            self._futures[block] = pool.submit(self._load, block)
        return self._futures[block]

    def _block(self, pool: ThreadPoolExecutor, block: int) -> _Loaded:
        return self._submit(pool, block).result()

    def _forget(self, position: Position, shares: list[Share]) -> None:
        open_blocks = {block for block, _ in position.partial}
        for share in shares:
            if share.block not in open_blocks:
                self._futures.pop(share.block, None)

    def _load(self, number: int) -> _Loaded:
        """Reads and converts one block; runs in the background thread."""
        columns = (*self._transform.columns, *self._extra)
        rows = self._log.rows(self._blocks[number], self._part, columns)
        dealt = len(rows.numbers)
        if dealt == 0:
            return _Loaded(self._transform.empty(), None, 0, None)
        order = np.arange(dealt)
        shuffle = self._log.schema.data.shuffle
        if self._seed is not None and shuffle is not None:
            order = np.random.default_rng([self._seed, shuffle.seed, self._start.epoch, number]).permutation(dealt)
        block, alive = self._convert(rows)
        used = None
        if alive is not None:
            # Of the dealt order only what is alive remains; places in the converted block follow.
            lives = alive[order]
            used = np.concatenate([[0], np.cumsum(lives)])
            order = (np.cumsum(alive) - 1)[order[lives]]
        if self._seed is not None and shuffle is not None:
            block = block.take(order)
        extra = None
        if self._extra:
            table = rows.table.select(self._extra)
            extra = (table if alive is None else table.filter(pa.array(alive))).take(pa.array(order))
        return _Loaded(block, extra, dealt, used)

    def _convert(self, rows: Rows) -> tuple[Block, np.ndarray[tuple[int], np.dtype[np.bool_]] | None]:
        """The converted rows and which of them are alive (None: all); bad ones are refused or set aside."""
        table, alive = rows.table, None
        while True:
            try:
                return self._transform.convert(table), alive
            except BadRowsError as error:
                present = np.arange(len(rows.numbers)) if alive is None else np.flatnonzero(alive)
                bad = present[error.rows]
                located = BadRowsError(error.message, error.column, bad)
                if self._log.schema.data.on_bad_row == "error":
                    raise locate(located, rows) from None
                self.quarantine.add(error.column, error.message, [rows.origin(int(row)) for row in bad])
                alive = np.ones(len(rows.numbers), np.bool_) if alive is None else alive
                alive[bad] = False
                table = rows.table.filter(pa.array(alive))

    def _extra_rows(self, loaded: list[_Loaded], parts: list[tuple[Block, int, int]]) -> pa.Table | None:
        tables = [
            lo.extra.slice(start, stop - start)
            for lo, (_, start, stop) in zip(loaded, parts, strict=False)
            if lo.extra is not None
        ]
        return pa.concat_tables(tables, promote_options="permissive") if tables else None

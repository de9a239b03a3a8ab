"""The parquet reader: a streamed log -> batches, in a seeded order that does not depend on the number of ranks.

    Log (files, joins, filters) --blocks--> rows --dealt to batches--> a rank's rows --features stage--> Batch, Position

One block is read and converted in a background thread while the batches of the one before are used, so at most two
blocks (of `data.block_rows` or `shuffle.buffer_rows` rows, and of at least one row group) are in memory. Every rank
reads all blocks and converts its own rows. Every item carries the position after the whole batch; a reader made from
that position yields exactly what would have followed, on any number of ranks. docs/reader.md has the rules.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from embtables.inputs.batch import Batch
from embtables.inputs.features import Block, FeatureTransform, FittedTransforms, Needs, make_batch
from embtables.inputs.values import BadRowsError, Int64s, Mask
from embtables.pipelines.sources.deal import Dealer, Share, needed, part_of
from embtables.pipelines.sources.files.record import FilesRead
from embtables.pipelines.sources.log import Log, LogRows, locate
from embtables.pipelines.sources.position import Position
from embtables.pipelines.sources.quarantine import Quarantine
from embtables.pipelines.sources.rows.split import LogPart

__all__ = ["Log", "LogPart", "ParquetReader", "Position", "ReaderItem"]

Role = Literal["training", "scoring"]


@dataclass(frozen=True, slots=True)
class ReaderItem:
    """A rank's part of a batch, its extra columns (None: none asked for), and the position after the whole batch."""

    batch: Batch
    position: Position
    extra: pa.Table | None


@dataclass(frozen=True, slots=True)
class _Bad:
    """Rows with a fault: which they are among those that were converted, and where they come from."""

    column: str
    reason: str
    rows: Int64s
    origins: list[tuple[str, int]]


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A block in its order of use; converted are the rows that this rank may need.

    `used[i]`: converted rows among the first i dealt ones (None: all). Rows that were set aside keep their place in the
    deal, so positions mean the same with and without them. `bad` has the place of each.
    """

    block: Block
    extra: pa.Table | None
    dealt: int
    used: Int64s | None
    bad: tuple[_Bad, ...] = ()

    def rows(self, share: Share) -> tuple[int, int]:
        if self.used is None:
            return min(share.start, self.block.num_rows), min(share.stop, self.block.num_rows)
        return int(self.used[min(share.start, self.dealt)]), int(self.used[min(share.stop, self.dealt)])

    def report_bad(self, share: Share, quarantine: Quarantine) -> None:
        for bad in self.bad:
            found = np.flatnonzero((bad.rows >= share.start) & (bad.rows < share.stop))
            if len(found):
                quarantine.add(bad.column, bad.reason, [bad.origins[n] for n in found])


class ParquetReader:
    """Iterates once over (the rest of) one epoch of a part of the log.

    Args:
        log: the opened log.
        part: train, validation, test, or None for every row that `where` admits.
        batch_size: rows of a batch, all ranks' parts together; only an epoch's last batch may hold fewer.
        fitted: transforms fitted on training data.
        seed: seed of the order; None reads in path order.
        epoch: which order; ignored if a position is given.
        rank, world_size: of every batch of B rows this reader hands out those from B * rank // world_size up to
            B * (rank + 1) // world_size, perhaps none.
        position: where to go on.
        files: those that the epoch began with; by default the present ones.
        extra_columns: log columns handed out beside each batch.
        needs: what is read of labels and sample weights, by default what the schema names; the log need
            not have columns that are not read.
        role: `scoring` reads neither of them, nor event times.
        quarantine_dir: where bad rows of this rank are listed, with `data.on_bad_row: quarantine`.

    Raises (on iteration):
        DataError: with file, column and row. BadFileError: with the file.
    """

    def __init__(
        self,
        log: Log,
        part: LogPart | None,
        *,
        batch_size: int,
        fitted: FittedTransforms,
        seed: int | None = None,
        epoch: int = 0,
        rank: int = 0,
        world_size: int = 1,
        position: Position | None = None,
        files: FilesRead | None = None,
        extra_columns: Sequence[str] = (),
        needs: Needs | None = None,
        role: Role = "training",
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
        self._transform = (
            FeatureTransform.for_training(log.schema, fitted, needs)
            if role == "training"
            else FeatureTransform.for_scoring(log.schema, fitted)
        )
        self._blocks = log.blocks(self._start.epoch, seed, part, files)
        self._used = dict(self._start.partial)
        sequence = [*self._used, *range(self._start.next_block, len(self._blocks))]
        self._following = dict(pairwise(sequence))
        self._dealt = 0  # rows of the blocks loaded so far
        self._futures: dict[int, Future[_Loaded]] = {}
        self.quarantine = Quarantine(quarantine_dir, rank)
        # Against every file's footer, before the first row is read.
        log.check([*self._transform.columns, *log.filter_columns(part), *self._extra])

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
        self._dealt = 0
        dealer = Dealer(len(self._blocks), self._dealt_rows(pool), self._batch_size, self._start)
        for shares, position in dealer.steps():
            own = part_of(shares, self._rank, self._world_size)
            loaded = [self._block(pool, share.block) for share in own]
            for one, share in zip(loaded, own, strict=True):
                one.report_bad(share, self.quarantine)
            parts = [(one.block, *one.rows(share)) for one, share in zip(loaded, own, strict=True)]
            batch = make_batch(self._transform.names, parts)
            extra = self._extra_rows(loaded, parts) if self._extra else None
            self._forget(position, shares)
            yield ReaderItem(batch, position, extra)

    def _dealt_rows(self, pool: ThreadPoolExecutor) -> Callable[[int], int]:
        """Rows of a block for the deal, known by loading it; the next one is then begun."""

        def load(block: int) -> int:
            rows = self._block(pool, block).dealt
            self._dealt += rows - self._used.get(block, 0)
            if block in self._following:
                self._submit(pool, self._following[block])
            return rows

        return load

    def _submit(self, pool: ThreadPoolExecutor, block: int) -> Future[_Loaded]:
        if block not in self._futures:
            self._futures[block] = pool.submit(self._load, block, self._dealt % self._batch_size)
        return self._futures[block]

    def _block(self, pool: ThreadPoolExecutor, block: int) -> _Loaded:
        return self._submit(pool, block).result()

    def _forget(self, position: Position, shares: list[Share]) -> None:
        open_blocks = {block for block, _ in position.partial}
        for share in shares:
            if share.block not in open_blocks:
                self._futures.pop(share.block, None)

    def _load(self, number: int, waiting: int) -> _Loaded:
        """Reads one block and converts this rank's rows; in the background. `waiting`: see `needed`."""
        columns = (*self._transform.columns, *self._extra)
        rows = self._log.rows(self._blocks[number], self._part, columns)
        dealt = len(rows.numbers)
        if dealt == 0:
            return _Loaded(self._transform.empty(), None, 0, None)
        shuffle = self._log.data.shuffle
        order = None
        if self._seed is not None and shuffle is not None:
            order = np.random.default_rng([self._seed, shuffle.seed, self._start.epoch, number]).permutation(dealt)
        if self._world_size == 1:
            return self._load_all(rows, order)
        used = self._used.get(number, 0)
        places = needed(dealt, used, waiting, self._batch_size, self._rank, self._world_size)
        return self._load_some(rows, places if order is None else order[places], places)

    def _load_all(self, rows: LogRows, order: Int64s | None) -> _Loaded:
        """The block's rows in an order (None: as they come), into which they are put when they are converted."""
        dealt = len(rows.numbers)
        block, alive, bad = self._convert(rows, rows.table, np.arange(dealt))
        lives = alive
        if order is not None:
            places = np.empty(dealt, np.int64)
            places[order] = np.arange(dealt)
            bad = [replace(each, rows=places[each.rows]) for each in bad]
            if alive is not None:
                # Of the dealt order only what is alive remains; places in the converted block follow.
                lives = alive[order]
                order = (np.cumsum(alive) - 1)[order[lives]]
            block = block.take(order)
        used = None if lives is None else np.concatenate([[0], np.cumsum(lives)])
        return _Loaded(block, self._extra_of(rows.table, alive, order), dealt, used, tuple(bad))

    def _load_some(self, rows: LogRows, picked: Int64s, places: Int64s) -> _Loaded:
        """Some of the block's rows, and their places among the dealt ones, ascending."""
        table = rows.table.take(pa.array(picked))
        block, alive, bad = self._convert(rows, table, picked) if len(picked) else (self._transform.empty(), None, [])
        there = np.zeros(len(rows.numbers), np.bool_)
        there[places if alive is None else places[alive]] = True
        used = np.concatenate([[0], np.cumsum(there)])
        bad = [replace(each, rows=places[each.rows]) for each in bad]
        return _Loaded(block, self._extra_of(table, alive, None), len(rows.numbers), used, tuple(bad))

    def _extra_of(self, table: pa.Table, alive: Mask | None, order: Int64s | None) -> pa.Table | None:
        if not self._extra:
            return None
        table = table.select(self._extra)
        table = table if alive is None else table.filter(pa.array(alive))
        return table if order is None else table.take(pa.array(order))

    def _convert(self, rows: LogRows, table: pa.Table, picked: Int64s) -> tuple[Block, Mask | None, list[_Bad]]:
        """A table's converted rows, which of its rows are alive (None: all), and the bad ones, which are refused or so.

        Args:
            picked: which of the block's rows they are.
        """
        rest, alive = table, None
        found: list[_Bad] = []
        for fault in rows.bad:
            bad = np.flatnonzero(np.isin(picked, fault.rows))
            if len(bad):
                found.append(_Bad(fault.column, fault.reason, bad, [rows.origin(int(row)) for row in picked[bad]]))
                alive = np.ones(table.num_rows, np.bool_) if alive is None else alive
                alive[bad] = False
        if alive is not None:
            rest = table.filter(pa.array(alive))
        while True:
            try:
                return self._transform.convert(rest), alive, found
            except BadRowsError as error:
                bad = error.rows if alive is None else np.flatnonzero(alive)[error.rows]
                if self._log.data.on_bad_row == "error":
                    raise locate(BadRowsError(error.message, error.column, picked[bad]), rows) from None
                origins = [rows.origin(int(row)) for row in picked[bad]]
                found.append(_Bad(error.column, error.message, bad, origins))
                alive = np.ones(table.num_rows, np.bool_) if alive is None else alive
                alive[bad] = False
                rest = table.filter(pa.array(alive))

    def _extra_rows(self, loaded: list[_Loaded], parts: list[tuple[Block, int, int]]) -> pa.Table:
        tables = [
            one.extra.slice(start, stop - start)
            for one, (_, start, stop) in zip(loaded, parts, strict=True)
            if one.extra is not None
        ]
        return pa.concat_tables(tables)

"""A parquet log as a source of training batches: a number of epochs, each in an order of its own."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from embtables.inputs.features import FittedTransforms, Needs
from embtables.pipelines.config import Train
from embtables.pipelines.progress import say
from embtables.pipelines.sources.files.record import Continued, FilesRead, FilesRecord, go_on
from embtables.pipelines.sources.parquet import Log, LogPart, ParquetReader, Position, ReaderItem
from embtables.shard.world import World

_SHOWN = 5


class Epoch:
    """One pass over the training part of a log; a `Stretch`."""

    def __init__(self, reader: ParquetReader, title: str, rows: int | None) -> None:
        self._reader = reader
        self.title = title
        self.total_rows_hint = rows

    @property
    def quarantined(self) -> Mapping[str, int]:
        """See Stretch."""
        return self._reader.quarantine.counts

    @property
    def next_position(self) -> None:
        """See Stretch: every epoch begins at its own beginning."""
        return None

    def __iter__(self) -> Generator[ReaderItem, None, None]:
        return iter(self._reader)


class LogEpochs:
    """`train.epochs` passes over a part of a log, by default that for training; a `BatchSource`.

    Args:
        log: the opened log.
        fitted: transforms fitted on its training part.
        part: None: every row that `where` admits.
        in_order: rows come in the order of the files, whatever `data.shuffle` says.
        extra_columns: log columns handed out beside each batch.
        train: batch size, seed and number of epochs.
        world: the ranks that share every batch.
        needs: what the task reads of labels and sample weights.
        epoch_rows: rows of an epoch, if they were counted.
        quarantine_dir: where bad rows of this rank are listed, if they are.
        record: the lists of files that the run's epochs began with.
        shown: whether it is said that files were added.
    """

    def __init__(
        self,
        log: Log,
        fitted: FittedTransforms,
        train: Train,
        world: World,
        *,
        needs: Needs,
        epoch_rows: int | None,
        quarantine_dir: Path | None,
        record: FilesRecord,
        part: LogPart | None = "train",
        in_order: bool = False,
        extra_columns: Sequence[str] = (),
        shown: bool = True,
    ) -> None:
        self._log = log
        self._fitted = fitted
        self._train = train
        self._world = world
        self._needs = needs
        self._epoch_rows = epoch_rows
        self._quarantine_dir = quarantine_dir
        self._record = record
        self._part = part
        self._in_order = in_order or log.data.shuffle is None
        self._extra_columns = extra_columns
        self._shown = shown

    @property
    def bad_files(self) -> Mapping[str, str]:
        """See BatchSource."""
        return self._log.bad_files

    def stretch(self, number: int, position: Mapping[str, Any] | None) -> Epoch | None:
        """See BatchSource: an epoch."""
        train = self._train
        if number >= train.epochs:
            return None
        start = Position(number) if position is None else Position.from_json(position)
        files = self._files(None if position is None else start)
        reader = ParquetReader(
            self._log,
            self._part,
            batch_size=train.batch_size,
            fitted=self._fitted,
            seed=None if self._in_order else train.seed,
            rank=self._world.rank,
            world_size=self._world.size,
            position=replace(start, files=files.digest),
            files=files,
            needs=self._needs,
            extra_columns=self._extra_columns,
            quarantine_dir=self._quarantine_dir,
        )
        return Epoch(reader, f"epoch {number + 1} of {train.epochs}", self._epoch_rows)

    def _files(self, position: Position | None) -> FilesRead:
        """The files that the epoch reads; recorded before anything of it is.

        Raises:
            StateError: files that an epoch has begun with are gone, or are not what they were.
        """
        present = self._log.record(self._part, checksums=self._record.is_kept)
        files = present
        if position is not None and position.files not in (None, present.digest):
            assert position.files is not None
            found = go_on(self._record.read(position.files), present, in_order=self._in_order)
            files = found.files
            if self._shown and self._world.rank == 0:
                self._say_added(found)
        self._record.keep(files)
        return files

    def _say_added(self, found: Continued) -> None:
        if found.taken:
            say(f"files were added to the log, and are read at the end of this epoch: {_listed(found.taken)}")
        if found.left:
            why = "they come before others" if self._in_order else "rows come in shuffled order"
            say(
                f"files were added to the log, and this epoch goes on without them, because {why}; the next epoch "
                f"reads them: {_listed(found.left)}"
            )


def _listed(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more

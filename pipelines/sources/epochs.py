"""A parquet log as a source of training batches: a number of epochs, each in an order of its own."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

from embtables.inputs.features import FittedTransforms, Needs
from embtables.pipelines.config import Train
from embtables.pipelines.sources.parquet import Log, ParquetReader, Position, ReaderItem
from embtables.shard.world import World


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

    def __iter__(self) -> Generator[ReaderItem, None, None]:
        return iter(self._reader)


class LogEpochs:
    """`train.epochs` passes over the training part of a log; a `BatchSource`.

    Args:
        log: the opened log.
        fitted: transforms fitted on its training part.
        train: batch size, seed and number of epochs.
        world: the ranks that share every batch.
        needs: what the task reads of labels and sample weights.
        epoch_rows: rows of an epoch, if they were counted.
        quarantine_dir: where bad rows of this rank are listed, if they are.
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
    ) -> None:
        self._log = log
        self._fitted = fitted
        self._train = train
        self._world = world
        self._needs = needs
        self._epoch_rows = epoch_rows
        self._quarantine_dir = quarantine_dir

    @property
    def bad_files(self) -> Mapping[str, str]:
        """See BatchSource."""
        return self._log.bad_files

    def stretch(self, number: int, position: Mapping[str, Any] | None) -> Epoch | None:
        """See BatchSource: an epoch."""
        train = self._train
        if number >= train.epochs:
            return None
        reader = ParquetReader(
            self._log,
            "train",
            batch_size=train.batch_size,
            fitted=self._fitted,
            seed=train.seed,
            epoch=number,
            rank=self._world.rank,
            world_size=self._world.size,
            position=None if position is None else Position.from_json(position),
            needs=self._needs,
            quarantine_dir=self._quarantine_dir,
        )
        return Epoch(reader, f"epoch {number + 1} of {train.epochs}", self._epoch_rows)

"""The log as training reads it: keys of its first rows, how many rows there are, and what reading them takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from embtables.errors import DataError
from embtables.ids import make_encoder
from embtables.inputs.batch import Batch
from embtables.inputs.features import Block, FeatureTransform, FittedTransforms, make_batch
from embtables.inputs.values import BadRowsError
from embtables.models.task import task_of
from embtables.pipelines.config import RunConfig
from embtables.pipelines.plan.keys import Ints, KeySample
from embtables.pipelines.plan.machine import Reading
from embtables.pipelines.progress import RowProgress
from embtables.pipelines.sources.files.source import Chunk
from embtables.pipelines.sources.log import BlockChunks
from embtables.pipelines.sources.parquet import Log, ParquetReader
from embtables.schema import Table

_MOST_KEYS = 16_000_000  # of all tables
_TIMED_ROWS = 131_072
_READ_TIMES = 4  # rows of scattered row groups that are read for one that is looked at,
_READ_ROWS = 4_000_000  # and at least so many: a log of that size is sampled all over
_REPEATS = 3


@dataclass(frozen=True)
class LogSample:
    """What was read.

    Attributes:
        keys: by table, without first-order weights, which have those of their tables; in the order of training.
        scattered: the same of rows from all over the log: how tables grow. Neighbouring rows have much in common, and a
            shuffled block has the rows of few row groups.
        rows: of the train part that were read, in the order of training.
        train_rows: of the whole train part.
        rows_per_second: rows of the sample to a second of event time; None without event times.
        reading: what it takes.
    """

    keys: Mapping[str, KeySample]
    scattered: Mapping[str, KeySample]
    rows: int
    train_rows: int
    rows_per_second: float | None
    reading: Reading


def read_sample(config: RunConfig, most_rows: int, *, shown: bool = True) -> LogSample:
    """Reads the first rows of training's own order.

    Args:
        config: with prepared data.

    Raises:
        DataError: the train part has no rows, or what the reader raises.
    """
    log = Log(config, config.data)
    train_rows = log.count_rows("train")
    if train_rows == 0:
        raise DataError("the train part holds no rows; look at data.split and data.where")
    fitted = log.fit_transforms(config.train.seed, most_rows)
    keys, rows, per_second = _in_order(config, log, fitted, min(most_rows, train_rows), shown=shown)
    scattered = _scattered(config, log, fitted, rows, train_rows)
    return LogSample(keys, scattered, rows, train_rows, per_second, _time_reading(config, log, fitted))


def _in_order(
    config: RunConfig, log: Log, fitted: FittedTransforms, most_rows: int, *, shown: bool
) -> tuple[dict[str, KeySample], int, float | None]:
    """Keys of the first rows of training; how many rows that were, and how many to a second of event time."""
    parts = _no_parts(config)
    rows = keys = 0
    first = last = 0.0
    train = config.train
    needs = task_of(config).needs(config)
    reader = ParquetReader(log, "train", batch_size=train.batch_size, fitted=fitted, seed=train.seed, needs=needs)
    items = reader.__iter__()
    with RowProgress("reading the log", most_rows, shown=shown) as progress:
        for item in items:
            keys += _collect(config, item.batch, rows, parts)
            times = item.batch.event_time_us
            if times is not None:
                first, last = (float(times[0]) if rows == 0 else first), float(times[-1])
            rows += item.batch.num_rows
            progress.advance(item.batch.num_rows)
            if rows >= most_rows or keys >= _MOST_KEYS:
                break
    items.close()
    per_second = rows / ((last - first) / 1e6) if last > first else None
    return {n: _ordered(pieces, rows, config.train.batch_size) for n, pieces in parts.items()}, rows, per_second


def _scattered(
    config: RunConfig, log: Log, fitted: FittedTransforms, most_rows: int, train_rows: int
) -> dict[str, KeySample]:
    """Keys of about `most_rows` rows, a random share of row groups that come in random order.

    If all row groups are read, rows come in random order too: then they are a sample of the whole log.
    """
    transform, parts = _transform(config, fitted), _no_parts(config)
    rng = np.random.default_rng(config.train.seed)
    chunks = [chunk for block in log.blocks(0, None, "train") for chunk in block]
    wanted = min(train_rows, max(_READ_TIMES * most_rows, _READ_ROWS))
    share = min(1.0, most_rows / wanted)
    read = rows = 0
    order = rng.permutation(len(chunks)).tolist()
    while order and read < wanted:
        group: list[Chunk] = []
        while order and sum(chunk.rows for chunk in group) < _TIMED_ROWS:
            group.append(chunks[order.pop()])
        table = log.rows(tuple(group), "train", transform.columns).table
        read += table.num_rows
        block = _converted(transform, table.filter(pa.array(rng.random(table.num_rows) < share)))
        if block.num_rows:
            _collect(config, make_batch(transform.names, [(block, 0, block.num_rows)]), rows, parts)
        rows += block.num_rows
    if not order:
        places = rng.permutation(rows)
        parts = {name: [(places[of], keys) for of, keys in pieces] for name, pieces in parts.items()}
    return {name: _ordered(pieces, rows, config.train.batch_size) for name, pieces in parts.items()}


def _transform(config: RunConfig, fitted: FittedTransforms) -> FeatureTransform:
    """What the reader does with rows."""
    return FeatureTransform.for_training(config, fitted, task_of(config).needs(config))


def _converted(transform: FeatureTransform, table: pa.Table) -> Block:
    """A table's rows, without those that cannot be converted: what becomes of them is the reader's to say."""
    while True:
        try:
            return transform.convert(table)
        except BadRowsError as error:
            good = np.ones(table.num_rows, np.bool_)
            good[error.rows] = False
            table = table.filter(pa.array(good))


def _no_parts(config: RunConfig) -> dict[str, list[tuple[Ints, Ints]]]:
    none = np.empty(0, np.int64)
    return {table.name: [(none, none)] for table in config.tables}


def _collect(config: RunConfig, batch: Batch, base: int, parts: dict[str, list[tuple[Ints, Ints]]]) -> int:
    """Adds a batch's keys, with their rows; how many there are."""
    tables: dict[str, Table] = {table.name: table for table in config.tables}
    names, b = list(batch.ids.keys), batch.num_rows
    lengths = batch.ids.lengths.numpy().reshape(len(names), b)
    bounds = np.concatenate([[0], np.cumsum(lengths.sum(axis=1))])
    values, total = batch.ids.values.numpy(), 0
    for position, feature in enumerate(config.features):
        ids = values[int(bounds[position]) : int(bounds[position + 1])].astype(np.int64, copy=False)
        encoder = make_encoder(feature.encoder, tables[feature.table].key_range, feature.name)
        keys = encoder.encode(ids)
        rows = base + np.repeat(np.arange(b), lengths[position] * encoder.num_keys)
        parts[feature.table].append((rows, keys))
        total += len(keys)
    return total


def _ordered(pieces: list[tuple[Ints, Ints]], rows: int, batch_rows: int) -> KeySample:
    of, keys = (np.concatenate([piece[which] for piece in pieces]) for which in (0, 1))
    order = np.argsort(of, kind="stable")
    return KeySample(keys[order], of[order], rows, batch_rows)


def _time_reading(config: RunConfig, log: Log, fitted: FittedTransforms) -> Reading:
    """Processor seconds of the reader's work on the beginning of an epoch, a row of the train part."""
    transform, seed = _transform(config, fitted), config.train.seed
    chunks, table = _first_rows(log, seed, transform)
    rows = table.num_rows
    order = np.random.default_rng(seed).permutation(rows)
    made: list[Block] = []

    def convert_all() -> None:
        converted = _converted(transform, table)
        made[:] = [converted if config.data.shuffle is None else converted.take(order)]

    own = order[: max(1, rows // 2)]
    decode = _processor_seconds(lambda: log.rows(chunks, "train", transform.columns)) / rows
    alone = _processor_seconds(convert_all) / rows
    convert = _processor_seconds(lambda: _converted(transform, table.take(pa.array(own)))) / len(own)
    b = min(config.train.batch_size, rows)
    starts = range(0, max(1, min(8 * b, rows - b + 1)), b)
    batches = _processor_seconds(lambda: [make_batch(transform.names, [(made[0], at, at + b)]) for at in starts])
    return Reading(
        decode=decode,
        convert=convert,
        alone=decode + alone,
        batch=batches / (len(starts) * b),
        bytes_per_row=table.nbytes / rows,
        converted_bytes=_bytes(made[0]) / rows,
    )


def _first_rows(log: Log, seed: int, transform: FeatureTransform) -> tuple[BlockChunks, pa.Table]:
    """The first chunks, in training's order, that hold rows of the train part, and these rows."""
    for block in log.blocks(0, seed, "train"):
        chunks: list[Chunk] = []
        for chunk in block:
            chunks.append(chunk)
            if sum(c.rows for c in chunks) >= _TIMED_ROWS:
                break
        table = log.rows(tuple(chunks), "train", transform.columns).table
        if table.num_rows:
            return tuple(chunks), table
    raise AssertionError("the train part has rows")


def _processor_seconds(work: Callable[[], object]) -> float:
    """Least of a few times, over all threads of the process."""
    found = []
    for _ in range(_REPEATS):
        begin = time.process_time()
        work()
        found.append(time.process_time() - begin)
    return min(found)


def _bytes(block: Block) -> int:
    found = block.dense.nbytes + block.labels.nbytes
    for ids, starts in zip(block.ids, block.starts, strict=True):
        found += ids.values.nbytes + (0 if ids.weights is None else ids.weights.nbytes)
        found += 0 if starts is None else 2 * starts.nbytes
    return found

"""`embtables running fold`: the running features of a log in parquet, as the checkpoint that a server begins with.

    the lines of data.prepare, or the events of any log --in order of time--> state, and the time that it goes to

A server with this checkpoint folds the events of its own log from that time on, so that its counts go on where those
that the model was trained on end.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embtables.errors import ConfigError, DataError
from embtables.events.columns import EVENT_ID, EVENT_TIME, KIND
from embtables.ids.strings import hash_strings
from embtables.inputs.id_kinds import IdKind, id_kind
from embtables.inputs.times import as_microseconds
from embtables.inputs.values import one_array
from embtables.pipelines.config import RunConfig
from embtables.pipelines.prepare.positives import read_positives
from embtables.pipelines.sources.files.source import Source, open_source
from embtables.running import RunningFeatures, read_checkpoint, write_checkpoint
from embtables.schema import EventTime, Running
from embtables.serving.running.fold_position import FoldPosition
from embtables.serving.running.usable_events import UsableEvents

Int64s = npt.NDArray[np.int64]
_ROWS = 65_536  # folded at a time


@dataclass(frozen=True, slots=True)
class _Events:
    """(n,) rows and their times in microseconds, ascending."""

    table: pa.Table
    times: Int64s


def fold_log(
    config: RunConfig, to: Path, log: str | None = None, *, event_time: str = EVENT_TIME, until_us: int | None = None
) -> dict[str, Any]:
    """Folds a log and writes the checkpoint.

    Args:
        config: whose `running` section says what is counted.
        to: the folder of the checkpoint, a server's `running_dir`.
        log: parquet file, folder or glob of events; by default the lines of `data.prepare`.
        event_time: the column of `log` with their times.
        until_us: rows at this time or later are left out, microseconds since 1970; by default none is.

    Returns:
        What was folded, for a report.

    Raises:
        ConfigError: the configuration has no running features or needs a log; or `to` has a checkpoint.
        DataError: a column is missing, or of a type that features can make nothing of.
        StateError: the checkpoint cannot be written.
    """
    running = config.running_columns()
    if running is None:
        raise ConfigError("has no section 'running'; nothing is to be folded", argument="config")
    if read_checkpoint(to) is not None:
        raise ConfigError("has a checkpoint, which a server may have gone on with; name another folder", argument="to")
    events = _of_prepare(config) if log is None else _of_events(running, log, event_time)
    kinds = _id_kinds(running, events.table)
    stop = len(events.times) if until_us is None else int(np.searchsorted(events.times, until_us))
    if until_us is None:
        until_us = int(events.times[-1]) + 1 if stop else None
    features = RunningFeatures(running.features, running.options)
    usable = UsableEvents(running, kinds, None)
    for start in range(0, stop, _ROWS):
        rows = slice(start, min(start + _ROWS, stop))
        part = _kept(usable, events.table.slice(start, rows.stop - start), events.times[rows])
        features.fold(part, in_order=True)
    position = FoldPosition(until_us=until_us, kinds=running.kinds, id_kinds=kinds, counts=dict(usable.counts))
    write_checkpoint(to, features.state(), position.model_dump(mode="json"), usable.ids.arrays())
    counts = features.counts
    return {
        "folder": str(to),
        "events": counts.events,
        "ignored": {**counts.ignored, **usable.counts},
        "keys": features.num_keys,
        "bytes": features.bytes,
        "until": None if until_us is None else str(np.datetime64(until_us, "us")),
        "left_out": len(events.times) - stop,
    }


def _of_prepare(config: RunConfig) -> _Events:
    prepare, data = config.data.prepare, config.data
    if prepare is None or data.path is None:
        raise ConfigError(
            "name the log of events: the rows that this configuration trains on are samples, of which not each is an "
            "event",
            argument="log",
        )
    found = read_positives(prepare, open_source(data.path, data.files, quarantine=False), data.path)
    return _Events(found.table, found.times)


def _of_events(running: Running, log: str, event_time: str) -> _Events:
    source = open_source(log, "**/*.parquet", quarantine=False)
    names = [event_time, *(name for feature in running.features for name in feature.columns)]
    names += [name for name in (KIND, EVENT_ID) if _has(source, name)]
    table = source.read_all(names, ids=running.keys)
    times = as_microseconds(EventTime(column=event_time), one_array(table.column(event_time)))
    order = np.argsort(times, kind="stable")
    return _Events(table.take(pa.array(order)), times[order])


def _has(source: Source, name: str) -> bool:
    return all(name in file.schema.names for file in source.files)


def _id_kinds(running: Running, table: pa.Table) -> dict[str, IdKind]:
    found: dict[str, IdKind] = {}
    for name in running.keys:
        if name not in table.schema.names:
            raise DataError(f"is missing; there are: {', '.join(table.schema.names)}", column=name)
        kind = id_kind(table.schema.field(name).type)
        if kind is not None:
            found[name] = kind
    return found


def _kept(usable: UsableEvents, table: pa.Table, times: Int64s) -> pa.Table:
    """What counts of rows, with their times where a fold of events looks for them."""
    moments = pa.array(times).cast(pa.timestamp("us"))
    if EVENT_TIME in table.schema.names:
        table = table.drop_columns([EVENT_TIME])
    table = table.append_column(EVENT_TIME, moments)
    keep = np.ones(len(times), np.bool_)
    if KIND in table.schema.names:
        keep &= usable.counted_mask(table).fill_null(False).to_numpy()
    if EVENT_ID in table.schema.names:
        ids = one_array(table.column(EVENT_ID))
        fresh = usable.ids.take(hash_strings(ids)) | ~ids.is_valid().to_numpy(zero_copy_only=False)
        usable.counts["repeated"] += int(np.count_nonzero(keep & ~fresh))
        keep &= fresh
    return table if keep.all() else table.filter(pa.array(keep))

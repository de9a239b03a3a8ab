"""What a run asks of its tables: the job, which does not depend on ranks, and one step of it at N ranks."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from embtables.models.build import features_of, tables_of
from embtables.pipelines.config import RunConfig
from embtables.pipelines.plan.keys import KeySample, busiest, owner_loads
from embtables.rows.host.state import bytes_of
from embtables.rows.limits import limits_of
from embtables.rows.stored_table import StoredTable
from embtables.schema import CollisionlessTable, Feature, Table
from embtables.schema.schema import LINEAR_PREFIX
from embtables.shard.exchange import LookupBytes
from embtables.shard.placement import replicated
from embtables.tables.shared_keys import stored_tables


@dataclass(frozen=True)
class JobLookup:
    """Tables that one lookup of a step reads.

    Attributes:
        tables: names; each is a block of the exchange's messages.
        readers: by table, how many features read it.
        trains: whether gradients come back; false for frozen tables.
        weighted: sums have factors (mean pooling, per-id weights).
    """

    tables: tuple[str, ...]
    readers: Mapping[str, int]
    trains: bool
    weighted: bool


@dataclass(frozen=True)
class Job:
    """A run, whatever its number of ranks.

    Attributes:
        tables: by name, first-order weights among them.
        features: what reads the tables, first-order weights among them.
        seeds: the tables' seeds, by name.
        lookups: the lookups of a step.
        batch_rows: rows of a step's batch, all ranks together.
        dense_parameters: how many weights the dense net has.
        clips: whether gradients are clipped by their norm.
        replicated: tables whose rows all ranks hold.
        sharing: tables that share the keys of another.
    """

    tables: Mapping[str, Table]
    features: tuple[Feature, ...]
    seeds: Mapping[str, int]
    lookups: tuple[JobLookup, ...]
    batch_rows: int
    dense_parameters: int
    clips: bool = False
    replicated: frozenset[str] = frozenset()
    sharing: frozenset[str] = frozenset()

    def at(self, ranks: int, batch_rows: int) -> Job:
        """The run at so many ranks: they replicate small tables."""
        tables = tuple(self.tables.values())
        return replace(self, replicated=replicated(tables, self.features, batch_rows=batch_rows, world_size=ranks))

    @property
    def sharded(self) -> tuple[JobLookup, ...]:
        """The lookups as they travel: without replicated tables."""
        return tuple(part for one in self.lookups if (part := _part(one, self.replicated, False)) is not None)

    @property
    def local(self) -> tuple[JobLookup, ...]:
        """What of the lookups every rank answers itself, if there are several."""
        return tuple(part for one in self.lookups if (part := _part(one, self.replicated, True)) is not None)


def _part(lookup: JobLookup, replicated: Collection[str], wanted: bool) -> JobLookup | None:
    names = tuple(name for name in lookup.tables if (name in replicated) is wanted)
    if not names:
        return None
    return JobLookup(names, {name: lookup.readers[name] for name in names}, lookup.trains, lookup.weighted)


def job_of(config: RunConfig, dense_parameters: int) -> Job:
    """The job of a configuration, of one process."""
    tables, features = tables_of(config, config.model), features_of(config, config.model)
    stored = {table.config.name: table for table in stored_tables(tables, features, config.train.seed)}
    return Job(
        tables={table.name: table for table in tables},
        features=features,
        seeds={name: table.seed for name, table in stored.items()},
        # Embeddings and first-order weights are looked up at once (PooledFirstOrderView).
        lookups=tuple(_lookups(tables, features)),
        batch_rows=config.train.batch_size,
        dense_parameters=dense_parameters,
        clips=config.train.clip_norm is not None,
        sharing=frozenset(name for name, table in stored.items() if table.keys_of is not None),
    )


def _lookups(tables: Sequence[Table], features: Sequence[Feature]) -> list[JobLookup]:
    """Of tables that learn and of frozen ones, which are looked up apart (embtables/tables/frozen_tables.py)."""
    found = []
    weighted = any(f.pooling == "mean" or f.weights_column is not None for f in features)
    for keep in (True, False):
        names = {table.name for table in tables if table.trainable is keep}
        readers = [feature.table for feature in features if feature.table in names]
        if readers:
            order = tuple(dict.fromkeys(readers))
            found.append(JobLookup(order, {name: readers.count(name) for name in order}, keep, weighted))
    return found


def sampled_name(table: str) -> str:
    """The table whose keys it has: first-order weights have those of their table."""
    return table.removeprefix(LINEAR_PREFIX)


@dataclass(frozen=True)
class TableLoad:
    """What one step asks of a table, at one rank unless said otherwise.

    Attributes:
        readers: features that read it.
        occurrences: keys of the rank's part, duplicates counted.
        asked: distinct keys of the part.
        touched: distinct keys of the whole batch: rows that are updated, by all ranks together.
        made: rows that are made in a step, by all ranks together.
        rows: rows of the whole table.
    """

    table: Table
    readers: int
    occurrences: float
    asked: float
    touched: float
    made: float
    rows: float

    @property
    def row_bytes(self) -> int:
        """Bytes of a row in the native store."""
        return bytes_of(StoredTable(self.table, 0), 0, 0)["row"]


@dataclass(frozen=True)
class StepLoad:
    """One step at N ranks.

    Attributes:
        part_rows: rows of a rank's part.
        tables: what is asked of each table, by name.
        skew: keys (weighted by their bytes) that the busiest owner is asked for, over the mean of all; at least 1.
    """

    ranks: int
    part_rows: float
    tables: Mapping[str, TableLoad]
    skew: float

    @property
    def batch_rows(self) -> float:
        """Of all ranks."""
        return self.part_rows * self.ranks


def step_load(
    job: Job,
    samples: Mapping[str, KeySample],
    rows: Mapping[str, float],
    made_per_row: Mapping[str, float],
    ranks: int,
    batch_rows: int,
) -> StepLoad:
    """One step.

    Args:
        samples: keys by table; first-order weights have those of their table.
        rows: rows of each table at the end.
        made_per_row: rows that each row of the log makes, by table, on average over the run.
        batch_rows: rows of a batch, all ranks together.
    """
    part = max(1, round(batch_rows / ranks))
    loads, readers = {}, {name: n for lookup in job.lookups for name, n in lookup.readers.items()}
    for name, table in job.tables.items():
        sample = samples[sampled_name(name)]
        touched = min(sample.distinct(batch_rows), max(rows[name], 1.0)) if len(sample.keys) else 0.0
        loads[name] = TableLoad(
            table=table,
            readers=readers[name],
            occurrences=sample.keys_per_row * batch_rows / ranks,
            asked=sample.distinct(part) * min(1.0, batch_rows / ranks / part),
            touched=touched,
            made=made_per_row[name] * batch_rows,
            rows=rows[name],
        )
    return StepLoad(ranks, batch_rows / ranks, loads, _skew(job, samples, ranks, part))


def _skew(job: Job, samples: Mapping[str, KeySample], ranks: int, part: int) -> float:
    if ranks == 1 or not job.sharded:
        return 1.0
    mean, variance = np.zeros(ranks), np.zeros(ranks)
    for lookup in job.sharded:
        for name in lookup.tables:
            each, spread = owner_loads(samples[sampled_name(name)].spread(part, job.seeds[name]), ranks)
            weight = LookupBytes.of([1.0], [job.tables[name].dim], 0, trains=lookup.trains).total
            mean, variance = mean + each * weight, variance + spread * weight**2
    return busiest(mean, variance)


def num_limits(job: Job) -> int:
    """Limits that the ranks look at after a step."""
    found = 0
    for table in job.tables.values():
        if isinstance(table, CollisionlessTable) and table.trainable:
            max_rows, max_waiting = limits_of(table)
            found += (max_rows is not None) + bool(max_waiting)
    return found

"""A run at any number of ranks: what a rank holds, sends and takes for a step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from embtables.keyspace import NUM_BUCKETS
from embtables.pipelines.plan.cost import StepTime, step_time
from embtables.pipelines.plan.growth import Estimate
from embtables.pipelines.plan.keys import KeySample
from embtables.pipelines.plan.load import Job, StepLoad, step_load
from embtables.pipelines.plan.machine import Link, Machine
from embtables.pipelines.plan.memory import TableMemory, table_memory
from embtables.pipelines.plan.traffic import Traffic, traffic
from embtables.schema import FixedTable

RANKS = tuple(2**n for n in range(NUM_BUCKETS.bit_length()))


@dataclass(frozen=True)
class Memory:
    """Bytes of the fullest rank.

    Attributes:
        tables: by name.
        process: before its tables: the interpreter and its libraries.
        dense: the dense net, its gradients and Adam's state.
        reader: two blocks of the log, as read and converted.
        messages: of a step's lookups.
    """

    tables: Mapping[str, TableMemory]
    process: int
    dense: int
    reader: int
    messages: int

    @property
    def total(self) -> int:
        """All of it, with no version being written."""
        return sum(t.total for t in self.tables.values()) + self.process + self.dense + self.reader + self.messages

    @property
    def image(self) -> int:
        """More, while a snapshot is written: at worst a copy of all rows."""
        return sum(t.rows for t in self.tables.values())


@dataclass(frozen=True)
class Point:
    """A number of ranks, and the tables that these replicate."""

    load: StepLoad
    time: StepTime
    traffic: Traffic
    memory: Memory
    replicated: frozenset[str]

    @property
    def rows_per_second(self) -> float:
        """Of the log, by all ranks."""
        return self.load.batch_rows / self.time.seconds


@dataclass(frozen=True)
class Scenario:
    """A run on given machines.

    Attributes:
        samples: keys by table, first-order weights apart.
        estimates: rows by table, first-order weights among them.
        train_rows: rows of the log that the run trains on once.
        block_rows: rows of a block of the reader.
    """

    job: Job
    samples: Mapping[str, KeySample]
    estimates: Mapping[str, Estimate]
    train_rows: float
    machine: Machine
    link: Link
    block_rows: int

    def at(self, ranks: int, batch_rows: int | None = None) -> Point:
        """The run at so many ranks, with its batch or another."""
        batch = self.job.batch_rows if batch_rows is None else batch_rows
        rows = {name: estimate.rows for name, estimate in self.estimates.items()}
        made = {
            name: 0.0 if isinstance(self.job.tables[name], FixedTable) else rows[name] / max(self.train_rows, 1.0)
            for name in rows
        }
        job = self.job.at(ranks, batch)
        load = step_load(job, self.samples, rows, made, ranks, batch)
        time = step_time(job, load, self.machine, self.link)
        return Point(load, time, traffic(job, load), self._memory(job, load), job.replicated)

    def _memory(self, job: Job, load: StepLoad) -> Memory:
        """What the fullest rank holds."""
        n, reading = load.ranks, self.machine.reading
        tables = {
            name: table_memory(
                table,
                self.estimates[name].rows,
                self.estimates[name].waiting,
                n,
                replicated=name in job.replicated,
            )
            for name, table in job.tables.items()
        }
        floats = sum(t.asked * t.table.dim for t in load.tables.values())
        pooled = sum(t.slots * load.part_rows * t.table.dim for t in load.tables.values())
        own = 1.0 if n == 1 else 1.0 / n
        return Memory(
            tables=tables,
            process=(self.machine.alone if n == 1 else self.machine.rank).base_bytes,
            dense=16 * job.dense_parameters,
            reader=round(2 * self.block_rows * (reading.bytes_per_row + own * reading.converted_bytes)),
            # Rows and gradients, as who asks and as who owns; sums and their gradients.
            messages=round(4 * (floats * (2 + 2 * load.skew) * (n > 1) + 2 * pooled)),
        )

    def curve(self, part_rows: int | None = None) -> list[Point]:
        """The run at 1, 2, 4, ... 1,024 ranks: with its batch or, with `part_rows`, with so many rows for each."""
        return [self.at(n, None if part_rows is None else n * part_rows) for n in RANKS]

    def with_table(self, name: str, **changes: object) -> Scenario:
        """The same with another configuration of a table."""
        tables = dict(self.job.tables)
        tables[name] = tables[name].model_copy(update=changes)
        return replace(self, job=replace(self.job, tables=tables))

"""A run at any number of ranks: what a rank holds, sends and takes for a step; what does not fit, what to change."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from embtables.keyspace import ALL_BUCKETS, NUM_BUCKETS
from embtables.pipelines.plan.cost import StepTime, Traffic, step_time, traffic
from embtables.pipelines.plan.keys import Estimate, KeySample
from embtables.pipelines.plan.load import Job, StepLoad, step_load
from embtables.pipelines.plan.machine import Link, Machine
from embtables.rows.host.state import bytes_of
from embtables.rows.optimizers import optimizer_spec
from embtables.rows.stored_table import StoredTable
from embtables.schema import CollisionlessTable, FixedTable, RowwiseAdagrad, Table
from embtables.shard.exchange import FLOAT_BYTES

_MOST_KEPT = 0.9  # of max_rows that fit: a table holds more for a moment


@dataclass(frozen=True)
class TableMemory:
    """Bytes that a rank holds of a table.

    Attributes:
        rows: weights, optimizer state and bookkeeping.
        keys: the map or index of its keys, waiting ones in it, and a sketch of these.
        listed: at most, the list of rows touched since the last version.
        num_rows: rows of the rank.
    """

    rows: int
    keys: int
    listed: int
    num_rows: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.rows + self.keys + self.listed


def table_memory(
    table: Table, rows: float, waiting: float, ranks: int, *, replicated: bool = False, shares_keys: bool = False
) -> TableMemory:
    """What the fullest of the ranks holds of a table with `rows` rows and `waiting` waiting keys.

    Rows are spread by a hash of their keys: the fullest of N ranks has its buckets' share and three deviations more.

    Raises:
        ConfigError: the native store cannot hold the table.
    """
    parts = 1 if replicated else ranks
    own, own_waiting = (math.ceil(min(_fullest(n, parts), n)) for n in (rows, waiting))
    buckets = ALL_BUCKETS if parts == 1 else (0, math.ceil(NUM_BUCKETS / parts))
    # A table that shares another's keys has no map of its own, whichever table that is.
    found = bytes_of(StoredTable(table, 0, buckets, keys_of=table.name if shares_keys else None), own, own_waiting)
    return TableMemory(
        rows=found["rows"],
        # Each rank reserves the whole sketch; what its buckets do not touch takes no memory.
        keys=found["keys"] + found["counts"] // parts,
        listed=found["listed"] if table.trainable else 0,
        num_rows=found["rows"] // found["row"],
    )


def _fullest(rows: float, ranks: int) -> float:
    if ranks == 1 or rows <= 0.0:
        return rows
    mean = rows * math.ceil(NUM_BUCKETS / ranks) / NUM_BUCKETS
    return mean + 3.0 * math.sqrt(mean)


@dataclass(frozen=True)
class Memory:
    """Bytes of the fullest rank.

    Attributes:
        tables: what it holds of each table, by name.
        process: the process before its tables: the interpreter and its libraries.
        dense: the dense net, its gradients and Adam's state.
        reader: two blocks of the log, as read and converted.
        messages: the messages of a step's lookups.
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
        """What is added while a snapshot is written: at worst a copy of all rows."""
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
                shares_keys=name in job.sharing,
            )
            for name, table in job.tables.items()
        }
        floats = sum(t.asked * t.table.dim for t in load.tables.values())
        pooled = sum(t.readers * load.part_rows * t.table.dim for t in load.tables.values())
        own = 1.0 if n == 1 else 1.0 / n
        return Memory(
            tables=tables,
            process=(self.machine.alone if n == 1 else self.machine.rank).base_bytes,
            dense=16 * job.dense_parameters,
            reader=round(2 * self.block_rows * (reading.bytes_per_row + own * reading.converted_bytes)),
            # Rows and gradients, as who asks and as who owns; sums and their gradients.
            messages=round(FLOAT_BYTES * (floats * (2 + 2 * load.skew) * (n > 1) + 2 * pooled)),
        )

    def with_table(self, name: str, **changes: object) -> Scenario:
        """The same with another configuration of a table."""
        tables = dict(self.job.tables)
        tables[name] = tables[name].model_copy(update=changes)
        return replace(self, job=replace(self.job, tables=tables))


@dataclass(frozen=True)
class Advice:
    """Whether a plan fits, and lines for the user."""

    fits: bool
    lines: tuple[str, ...]


def advise(scenario: Scenario, point: Point, memory_bytes: float | None) -> Advice:
    """Whether a point fits, and what would change that."""
    lines: list[str] = []
    fits = memory_bytes is None or point.memory.total <= memory_bytes
    if memory_bytes is not None and not fits:
        lines += _smaller(scenario, point, memory_bytes)
    elif memory_bytes is not None and point.memory.total + point.memory.image > memory_bytes:
        lines.append(
            f"a rank needs {_gb(point.memory.total)} and fits; while a snapshot is written, up to "
            f"{_gb(point.memory.image)} more, which does not: more workers, or fewer rows"
        )
    return Advice(fits, (*lines, *_slow(scenario, point)))


def _smaller(scenario: Scenario, point: Point, memory_bytes: float) -> list[str]:
    ranks, needed = point.load.ranks, point.memory.total
    lines = [f"does not fit: a rank needs {_gb(needed)}, it has {_gb(memory_bytes)}"]
    enough = _least_ranks(scenario, ranks, memory_bytes)
    if enough is None:
        lines.append(f"more workers do not help: at {NUM_BUCKETS:,}, the most there can be, it does not fit either")
    else:
        lines.append(f"--workers {enough}: a rank needs {_gb(scenario.at(enough).memory.total)}")
    name, largest = max(point.memory.tables.items(), key=lambda item: item[1].total)
    table = scenario.job.tables[name]
    rest = memory_bytes - (needed - largest.total)
    if rest > 0 and isinstance(table, CollisionlessTable) and largest.num_rows:
        limit = int(_MOST_KEPT * rest / (largest.total / largest.num_rows) * ranks)
        lines.append(f"table '{name}' with max_rows: {limit:,} would fit; a ttl_seconds bounds it by time instead")
    elif rest <= 0:
        lines.append(f"without table '{name}', the largest, it would not fit either")
    changes: list[tuple[str, dict[str, object]]] = []
    if any(column.per_element for column in optimizer_spec(table.optimizer).state.values()):
        changed = RowwiseAdagrad(learning_rate=table.optimizer.learning_rate)
        changes.append(("optimizer: {kind: rowwise_adagrad}", {"optimizer": changed}))
    if table.dim >= 2:
        changes.append((f"dim: {table.dim // 2}", {"dim": table.dim // 2}))
    for text, change in changes:
        smaller = scenario.with_table(name, **change).at(ranks).memory.total
        if smaller < needed:
            lines.append(f"table '{name}' with {text}: a rank needs {_gb(smaller)}")
    return lines


def _least_ranks(scenario: Scenario, ranks: int, memory_bytes: float) -> int | None:
    """By halving: memory of a rank falls with their number."""
    low, high = ranks, NUM_BUCKETS
    if scenario.at(high).memory.total > memory_bytes:
        return None
    while low < high:
        middle = (low + high) // 2
        if scenario.at(middle).memory.total <= memory_bytes:
            high = middle
        else:
            low = middle + 1
    return low


_WHY = {
    "batch": "putting batches together",
    "dense": "the dense net",
    "asking": "lookups and sums of embeddings",
    "owning": "rows looked up and updated for all ranks",
    "skew": "the owner of the hottest keys; a larger batch does not help, fewer ranks do",
    "latency": "the number of messages; a larger train.batch_size makes them longer instead",
    "wire": "bytes on the wire: a faster link, a smaller dim, or a larger batch with more duplicates",
    "reading": "reading: every rank decodes the whole log, so more ranks do not read faster; fewer columns do",
}


def _slow(scenario: Scenario, point: Point) -> list[str]:
    """What to say if a plan gains little from its ranks."""
    n = point.load.ranks
    if n == 1:
        return []
    alone = scenario.at(1).rows_per_second
    gain = point.rows_per_second / alone
    if gain >= n / 2:
        return []
    found = (
        f"{n:,} ranks train {gain:.2f} times the rows per second of one; most of a step is {_WHY[point.time.bound_by]}"
    )
    return [found]


def _gb(size: float) -> str:
    return f"{size / 1e9:,.2f} GB"

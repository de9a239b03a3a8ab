"""What one step sends and how long it takes: pure functions of its load, the machine's constants and the link.

An all_reduce of n bytes sends 2 n (N - 1) / N from each rank, as gloo's ring does. What stays at a rank counts nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

from embtables.pipelines.plan.load import Job, JobLookup, StepLoad, TableLoad, num_limits
from embtables.pipelines.plan.machine import Link, Machine, Rates
from embtables.schema import CollisionlessTable
from embtables.shard.copies import copied_bytes
from embtables.shard.exchange import LookupBytes


@dataclass(frozen=True)
class Traffic:
    """What one rank sends in one step.

    Attributes:
        keys, counts, rows, gradients: bytes sent as the mean rank does.
        sizes: bytes that say how long messages are and which have gradients.
        reduced: bytes of all_reduces sent: dense gradients, totals, clocks, limits.
        busiest: bytes that the rank with the hottest owner sends or receives, whichever is more.
        exchanges, reductions: calls of all_to_all and of all_reduce.
    """

    keys: float
    counts: float
    rows: float
    gradients: float
    sizes: float
    reduced: float
    busiest: float
    exchanges: int
    reductions: int

    @property
    def sent(self) -> float:
        """All bytes that the mean rank sends; it receives as many."""
        return self.keys + self.counts + self.rows + self.gradients + self.sizes + self.reduced

    @property
    def exchanged(self) -> float:
        """Those of all_to_all."""
        return self.sent - self.reduced


def traffic(job: Job, load: StepLoad) -> Traffic:
    """What one step sends."""
    n = load.ranks
    if n == 1:
        return Traffic(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0, 0)
    sent = [_lookup_bytes(one, job, load) for one in job.sharded]
    keys, counts, rows, gradients, sizes = (
        sum(getattr(one, name) for one in sent) for name in ("keys", "counts", "rows", "gradients", "headers")
    )
    reduced, reductions = _reduced(job, load)
    mean = keys + counts + rows + gradients
    # As an owner it receives keys and gradients of others and sends rows; as one who asks it does the reverse.
    out, back = keys + counts + gradients + rows * load.skew, rows + (keys + counts + gradients) * load.skew
    busiest = max(out, back) + sizes + reduced if mean else sizes + reduced
    exchanges = sum(one.calls for one in sent)
    return Traffic(keys, counts, rows, gradients, sizes, reduced, busiest, exchanges, reductions)


def _lookup_bytes(lookup: JobLookup, job: Job, load: StepLoad) -> LookupBytes:
    others = load.ranks - 1
    foreign = [load.tables[name].asked * others / load.ranks for name in lookup.tables]
    return LookupBytes.of(foreign, [job.tables[name].dim for name in lookup.tables], others, trains=lookup.trains)


def _reduced(job: Job, load: StepLoad) -> tuple[float, int]:
    """Bytes that a rank sends for what is summed or gathered over all, and how many calls that is."""
    n = load.ranks
    summed = [4 * (job.dense_parameters + 1), 4 * 8]  # gradients with the loss; totals of the batch
    limits = num_limits(job)
    summed += [8 * limits] if limits else []
    summed += [8] if job.clips else []
    copied = sum(copied_bytes(table, replicated=name in job.replicated) for name, table in job.tables.items())
    summed += [copied] if copied else []
    refuses = sum(t.non_finite_gradients == "raise" for t in job.tables.values())
    summed += [8 * refuses] if refuses else []
    sent = sum(2 * size * (n - 1) / n for size in summed)
    gathers = 0
    if any(
        isinstance(t, CollisionlessTable) and t.ttl_seconds is not None and t.trainable for t in job.tables.values()
    ):
        sent += (8 + 8 * load.part_rows) * (n - 1)  # every rank's event times go to all
        gathers = 2
    return sent, len(summed) + gathers


@dataclass(frozen=True)
class StepTime:
    """Seconds of a step of the rank with the hottest owner.

    Attributes:
        batch: putting its rows together.
        dense: the dense net.
        asking: its own lookups; in one process, all work on tables.
        owning: what it does for the keys of all ranks, if it were asked for as many as the mean rank.
        skew: what its hot keys add to `owning` and to `wire`.
        latency: calls of all_to_all and all_reduce, and waiting for the latest rank at each.
        wire: the bytes of these calls.
        reading: what reading in the background adds.
    """

    batch: float
    dense: float
    asking: float
    owning: float
    skew: float
    latency: float
    wire: float
    reading: float

    @property
    def seconds(self) -> float:
        """All of the step."""
        return sum(self.parts().values())

    def parts(self) -> dict[str, float]:
        """By name."""
        return dict(vars(self))

    @property
    def bound_by(self) -> str:
        """The greatest part."""
        return max(self.parts().items(), key=lambda item: item[1])[0]


def ranks_of_machine(machine: Machine, ranks: int) -> int:
    """How many of the ranks one machine has: as many as have a core for each of their threads."""
    return 1 if ranks == 1 else min(ranks, max(1, machine.cores // machine.rank.threads))


def step_time(job: Job, load: StepLoad, machine: Machine, link: Link) -> StepTime:
    """One step at `load.ranks` ranks."""
    n, rates = load.ranks, machine.alone if load.ranks == 1 else machine.rank
    sent = traffic(job, load)
    batch = machine.reading.batch * load.part_rows
    dense = rates.dense_seconds(load.part_rows)
    owning = hot = 0.0
    if n == 1:
        asking = _held(job.lookups, load, machine, rates)
    else:
        asking = _held(job.local, load, machine, rates)
        for one in job.sharded:
            asking += _asking(one, load, rates)
            fixed, per_key = _owning(one, load, machine, rates)
            owning += fixed + per_key
            hot += per_key * (load.skew - 1.0)
    latency, wire, hot_wire = _wire(sent, load, machine, link)
    compute = batch + dense + asking + owning + hot
    path = compute + latency + wire + hot_wire
    # Calls and bytes between ranks of one machine are its processors' work; waiting for another machine is not.
    spoken = _latency(sent, ranks_of_machine(machine, n), machine) + sent.sent * machine.wire.byte
    reading = _reading(machine, load, min(path, compute + spoken), path)
    return StepTime(batch, dense, asking, owning, hot + hot_wire, latency, wire, reading)


def _held(lookups: tuple[JobLookup, ...], load: StepLoad, machine: Machine, rates: Rates) -> float:
    """Work on tables that the process holds whole."""
    total = 0.0
    for lookup in lookups:
        share = 1.0 if lookup.trains else 0.5
        total += share * rates.tables.seconds(_amounts(lookup, load))
        for name in lookup.tables:
            table = load.tables[name]
            total += share * rates.miss.seconds(_keys(table, table.asked, _missing(table, 1, machine)))
            total += rates.made * table.made
    return total


def _asking(lookup: JobLookup, load: StepLoad, rates: Rates) -> float:
    share = 1.0 if lookup.trains else 0.5
    return share * rates.asking.seconds(_amounts(lookup, load) | {"block": float(len(lookup.tables) * load.ranks)})


def _owning(lookup: JobLookup, load: StepLoad, machine: Machine, rates: Rates) -> tuple[float, float]:
    """What an owner like the mean does whatever its keys, and for its keys."""
    n, share = load.ranks, 1.0 if lookup.trains else 0.5
    fixed = rates.owning.seconds({"call": 1.0, "block": float(len(lookup.tables) * n)})
    per_key = 0.0
    for name in lookup.tables:
        table = load.tables[name]
        per_key += rates.owning.seconds(_keys(table, table.asked, 1.0))
        per_key += rates.miss.seconds(_keys(table, table.touched / n, _missing(table, n, machine)))
        per_key += rates.made * table.made / n
    return share * fixed, share * per_key


def _amounts(lookup: JobLookup, load: StepLoad) -> dict[str, float]:
    """What a lookup of a rank's part is made of."""
    found = {"call": 1.0, "feature": 0.0, "bag": 0.0, "bag_floats": 0.0, "occurrence": 0.0, "occurrence_floats": 0.0}
    found |= {"weighted": 0.0, "key": 0.0, "key_floats": 0.0}
    for name in lookup.tables:
        table = load.tables[name]
        bags = table.readers * load.part_rows
        found["feature"] += table.readers
        found["bag"] += bags
        found["bag_floats"] += bags * table.table.dim
        found["occurrence"] += table.occurrences
        found["occurrence_floats"] += table.occurrences * table.table.dim
        found["weighted"] += table.occurrences * lookup.weighted
        found["key"] += table.asked
        found["key_floats"] += table.asked * table.table.dim
    return found


def _keys(table: TableLoad, keys: float, share: float) -> dict[str, float]:
    return {"key": keys * share, "key_floats": keys * share * table.table.dim}


def _missing(table: TableLoad, ranks: int, machine: Machine) -> float:
    """The share of a table's rows that does not fit in the caches, if the table were alone there."""
    held = table.rows * table.row_bytes / ranks
    return max(0.0, 1.0 - machine.cache_bytes / held) if held else 0.0


def _wire(sent: Traffic, load: StepLoad, machine: Machine, link: Link) -> tuple[float, float, float]:
    """Seconds of calls, of the mean rank's bytes, and of what the busiest has more."""
    n, wire = load.ranks, machine.wire
    if n == 1:
        return 0.0, 0.0, 0.0
    byte, reduced = link.byte_seconds(wire.byte), link.byte_seconds(wire.reduced_byte)
    more = max(0.0, sent.busiest - sent.sent)
    return _latency(sent, n, machine), sent.exchanged * byte + sent.reduced * reduced, more * byte


def _latency(sent: Traffic, ranks: int, machine: Machine) -> float:
    """Seconds of a step's calls among so many ranks, if their messages were empty.

    Each waits for the latest rank. How late ranks are is taken to be normal, alike and independent.
    """
    if ranks == 1:
        return 0.0
    wire, calls = machine.wire, sent.exchanges + sent.reductions
    exchange = wire.exchange + (ranks - 2) * wire.message
    waits = calls * wire.wait * _latest(ranks) / _latest(2)
    return sent.exchanges * exchange + sent.reductions * wire.reduction * (ranks - 1) + waits


def _latest(ranks: int) -> float:
    """The expected greatest of so many standard normal numbers (Blom 1958)."""
    return NormalDist().inv_cdf((ranks - 0.375) / (ranks + 0.25))


def _reading(machine: Machine, load: StepLoad, compute: float, path: float) -> float:
    """What reading in the background adds to a step: if all cores are busy, and if the path is shorter."""
    reading = machine.reading
    if load.ranks == 1:
        work = reading.alone * load.part_rows
    else:
        work = reading.decode * load.batch_rows + reading.convert * load.part_rows
    rates = machine.alone if load.ranks == 1 else machine.rank
    neighbours = ranks_of_machine(machine, load.ranks)
    spare = machine.cores - neighbours * rates.threads
    if spare >= neighbours:  # a core for every reader
        return max(path, work) - path
    # A region of several threads waits for the one whose core the reader has: all of them lose the reader's time.
    used = neighbours * rates.threads
    busy = used * (compute + work) / max(machine.cores, used)
    return max(path, busy, work) - path

"""Seconds of one step: a pure function of its load, the machine's constants and the link (see the package)."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

from embtables.pipelines.plan.load import Asking, Job, StepLoad, TableLoad
from embtables.pipelines.plan.machine import Link, Machine, Rates
from embtables.pipelines.plan.memory import row_bytes
from embtables.pipelines.plan.traffic import Traffic, traffic


@dataclass(frozen=True)
class StepTime:
    """Seconds of a step of the rank with the hottest owner.

    Attributes:
        batch: putting its rows together.
        dense: the dense net.
        asking: its lookups' share; of one process all of its tables' work.
        owning: what it does for all ranks' keys, were its owner like the mean.
        skew: what its hot keys add to that and to the wire.
        latency: calls of all_to_all and all_reduce, and waiting for the latest rank at each.
        wire: their bytes.
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
        """The step."""
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


def _held(lookups: tuple[Asking, ...], load: StepLoad, machine: Machine, rates: Rates) -> float:
    """Work on tables that the process holds whole."""
    total = 0.0
    for asking in lookups:
        share = 1.0 if asking.keep else 0.5
        total += share * rates.tables.seconds(_amounts(asking, load))
        for name in asking.tables:
            table = load.tables[name]
            total += share * rates.miss.seconds(_keys(table, table.asked, _missing(table, 1, machine)))
            total += rates.made * table.made
    return total


def _asking(asking: Asking, load: StepLoad, rates: Rates) -> float:
    share = 1.0 if asking.keep else 0.5
    return share * rates.asking.seconds(_amounts(asking, load) | {"block": float(len(asking.tables) * load.ranks)})


def _owning(asking: Asking, load: StepLoad, machine: Machine, rates: Rates) -> tuple[float, float]:
    """What an owner like the mean does whatever its keys, and for its keys."""
    n, share = load.ranks, 1.0 if asking.keep else 0.5
    fixed = rates.owning.seconds({"call": 1.0, "block": float(len(asking.tables) * n)})
    per_key = 0.0
    for name in asking.tables:
        table = load.tables[name]
        per_key += rates.owning.seconds(_keys(table, table.asked, 1.0))
        per_key += rates.miss.seconds(_keys(table, table.touched / n, _missing(table, n, machine)))
        per_key += rates.made * table.made / n
    return share * fixed, share * per_key


def _amounts(asking: Asking, load: StepLoad) -> dict[str, float]:
    """What a lookup of a rank's part is made of."""
    found = {"call": 1.0, "slot": 0.0, "bag": 0.0, "bag_floats": 0.0, "occurrence": 0.0, "occurrence_floats": 0.0}
    found |= {"weighted": 0.0, "key": 0.0, "key_floats": 0.0}
    for name in asking.tables:
        table = load.tables[name]
        bags = table.slots * load.part_rows
        found["slot"] += table.slots
        found["bag"] += bags
        found["bag_floats"] += bags * table.table.dim
        found["occurrence"] += table.occurrences
        found["occurrence_floats"] += table.occurrences * table.table.dim
        found["weighted"] += table.occurrences * asking.weighted
        found["key"] += table.asked
        found["key_floats"] += table.asked * table.table.dim
    return found


def _keys(table: TableLoad, keys: float, share: float) -> dict[str, float]:
    return {"key": keys * share, "key_floats": keys * share * table.table.dim}


def _missing(table: TableLoad, ranks: int, machine: Machine) -> float:
    """Which share of a table's rows cannot lie in the caches, were the table alone there."""
    held = table.rows * row_bytes(table.table) / ranks
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
    """Seconds of a step's calls among so many ranks, had their messages no bytes.

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
    """What reading in the background adds to a step: where cores are all busy, and where the path is shorter."""
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

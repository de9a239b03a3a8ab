"""What is measured of a machine: the dense net, tables, and gloo. Each runs in a process of its own.

Tables are probed in a world of mirrors: every message comes back as it was sent, so that a rank does all the work of
one among N, for what it asks and for what it owns, with nobody at the other end. The engine's own code runs, and is
timed between its messages.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import mean, median

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from embtables.ids import width_of
from embtables.inputs.batch import Jagged, JaggedIds
from embtables.lookup.views import PooledView
from embtables.models.build import refuse_features_without_view
from embtables.models.losses import weighted_bce_with_logits
from embtables.models.registry import ModelInputs, spec_of
from embtables.pipelines.config import RunConfig
from embtables.pipelines.plan.machine import Point, Wire, Work
from embtables.rows.row_format import RowFormat
from embtables.schema import CollisionlessTable, Feature, RowwiseAdagrad
from embtables.shard.world import ProcessGroup, SingleRank, World
from embtables.tables.table_set import Tables

_REPEATS, _FEWEST = 15, 3
_CALLS = 40
_WORK = 640  # rows and columns of a product that takes some milliseconds
_LARGE = 8 << 20  # bytes of a large message
_MESSAGES = 64  # small ones that are under way together
_MOST_SECONDS = 1.0  # of one case
Meet = Callable[[], None]
Step = Callable[[int], tuple[float, float]]


class Mirrors(World):
    """A world of `size` ranks that send this one what it sends them; it notes when its calls began and ended."""

    rank = 0

    def __init__(self, size: int) -> None:
        self.size = size
        self.calls: list[tuple[float, float]] = []

    def all_to_all(self, out: Tensor, given: Tensor, received: Sequence[int], sent: Sequence[int]) -> None:
        """See World."""
        begin = time.perf_counter()
        out.copy_(given)
        self.calls.append((begin, time.perf_counter()))

    def all_reduce(self, values: Tensor) -> None:
        """See World."""

    def all_gather(self, values: Tensor) -> list[Tensor]:
        """See World."""
        return [values] * self.size

    def another(self) -> World:
        """See World."""
        return self


@dataclass(frozen=True)
class Case:
    """A lookup: `readers` features with `ids` ids per row, each key `times` times in the batch.

    Attributes:
        pool: keys of the one table that all features read; a batch draws from them. 0: one table per feature, and a
            batch has all its keys.
    """

    readers: int
    dim: int
    ids: int
    times: int
    rows: int
    mean: bool = False
    pool: int = 0

    def amounts(self, ranks: int = 1) -> dict[str, float]:
        """See Work; of one rank among so many."""
        occurrences = float(self.readers * self.ids * self.rows)
        bags, keys = float(self.readers * self.rows), occurrences / self.times
        return {
            "call": 1.0,
            "feature": float(self.readers),
            "block": float(self.readers * ranks) if ranks > 1 else 0.0,
            "bag": bags,
            "bag_floats": bags * self.dim,
            "occurrence": occurrences,
            "occurrence_floats": occurrences * self.dim,
            "weighted": occurrences * self.mean,
            "key": keys,
            "key_floats": keys * self.dim,
        }


# Gradients of the large ones do not lie in a core's own cache, as those of a batch do not.
CASES = (
    Case(8, 16, 1, 1, 4096),
    Case(8, 64, 1, 1, 4096),
    Case(8, 16, 1, 8, 4096),
    Case(8, 64, 1, 8, 4096),
    Case(8, 16, 16, 64, 2048),
    Case(8, 16, 16, 64, 2048, mean=True),
    Case(8, 64, 16, 64, 1024),
    Case(4, 16, 16, 8, 1024),
    Case(32, 16, 1, 1, 16),
    Case(2, 16, 1, 1, 16),
)
MANY_RANKS = ((64, Case(32, 16, 1, 1, 512)), (512, Case(16, 16, 1, 1, 512)))


@dataclass(frozen=True)
class Timed:
    """Seconds of one step of a case: for asking, for owning (0 with one rank), and what its first step took more."""

    asking: float
    owning: float
    first: float


class Bench:
    """Tables of a case in a world, and its batches."""

    def __init__(self, case: Case, world: SingleRank | Mirrors) -> None:
        self._world = world
        count = 1 if case.pool else case.readers
        tables = [
            CollisionlessTable(name=f"t{n}", dim=case.dim, optimizer=RowwiseAdagrad(learning_rate=0.01))
            for n in range(count)
        ]
        self._names = [f"f{n}" for n in range(case.readers)]
        features = [
            Feature(name=name, table=f"t{n % count}", pooling="mean" if case.mean else "sum")
            for n, name in enumerate(self._names)
        ]
        self._tables = Tables(tables, features, seed=0, world=world)
        self._view = PooledView(self._tables)
        if case.pool:
            keys = torch.arange(case.pool)
            self._tables.rows.make(0, self._tables.keys_of("t0", keys, "f0")[1])
        self._gradient = torch.full((case.rows, case.readers * case.dim), 1e-3)
        self._batches = [self._batch(case, np.random.default_rng(seed)) for seed in range(3)]

    def _batch(self, case: Case, rng: np.random.Generator) -> JaggedIds:
        each = case.rows * case.ids
        if case.pool:
            ids = [rng.integers(0, case.pool, each) for _ in range(case.readers)]
        else:
            ids = [rng.permutation(np.arange(each) // case.times) for _ in range(case.readers)]
        lengths = torch.full((case.readers * case.rows,), case.ids)
        return JaggedIds(tuple(self._names), torch.from_numpy(np.concatenate(ids)), lengths, case.rows)

    def step(self, number: int) -> tuple[float, float]:
        """Seconds of one step: for asking, for owning."""
        batch = self._batches[number % len(self._batches)]
        calls = self._world.calls if isinstance(self._world, Mirrors) else []
        calls.clear()
        begin = time.perf_counter()
        out = self._view(batch)
        out.backward(self._gradient)
        self._tables.step()
        end = time.perf_counter()
        if not calls:
            return end - begin, 0.0
        _, keys, rows, gradients = calls
        owning = (rows[0] - keys[1]) + (end - gradients[1])
        copying = sum(stop - start for start, stop in calls)
        return end - begin - copying - owning, owning


def time_cases(cases: Sequence[tuple[int, Case]], meet: Meet) -> list[Timed]:
    """Seconds of a step of each case, of a rank among so many, or alone. `meet`: waits for the processes that measure
    the same beside this one.
    """
    benches = [Bench(case, SingleRank() if ranks == 1 else Mirrors(ranks)) for ranks, case in cases]
    meet()
    firsts = [sum(bench.step(0)) for bench in benches]
    found = []
    for first, steps in zip(firsts, _in_turns([bench.step for bench in benches]), strict=True):
        asking, owning = (median([s[part] for s in steps]) for part in (0, 1))
        found.append(Timed(asking, owning, max(0.0, first - asking - owning)))
    return found


def _in_turns(steps: Sequence[Step]) -> list[list[tuple[float, float]]]:
    """Seconds of steps that take turns, so that a slow moment of the machine hits all alike and no median. Of two in a
    row the second counts: what it needs lies in the caches as in a run.
    """
    found: list[list[tuple[float, float]]] = [[] for _ in steps]
    ends = time.perf_counter() + _MOST_SECONDS * len(steps)
    for number in range(_REPEATS):
        if number >= _FEWEST and time.perf_counter() > ends:
            break
        for step, seconds in zip(steps, found, strict=True):
            step(2 * number + 1)
            seconds.append(step(2 * number + 2))
    return found


@dataclass(frozen=True)
class TableWork:
    """What the tables cost a rank; see Rates."""

    held: Work
    asking: Work
    owning: Work
    miss: Work
    made: float


def tables(cache_bytes: int, meet: Meet) -> TableWork:
    """Probes tables: in one process, and as one rank of two and of many."""
    held = time_cases([(1, case) for case in CASES], meet)
    shared = [*((2, case) for case in CASES), *MANY_RANKS]
    timed = time_cases(shared, meet)
    of_held = Work.fitted([case.amounts() for case in CASES], [t.asking for t in held])
    missing = [_miss(case, of_held, meet) for case in _large(cache_bytes)]
    return TableWork(
        held=of_held,
        asking=Work.fitted([case.amounts(ranks) for ranks, case in shared], [t.asking for t in timed]),
        owning=Work.fitted([of_owner(case, ranks) for ranks, case in shared], [t.owning for t in timed]),
        miss=Work.fitted([_of_keys(case) for case, _ in missing], [seconds for _, seconds in missing]),
        made=min(t.first / case.amounts()["key"] for case, t in zip(CASES[:2], held[:2], strict=True)),
    )


def _of_keys(case: Case) -> dict[str, float]:
    return {name: amount for name, amount in case.amounts().items() if name in ("key", "key_floats")}


def of_owner(case: Case, ranks: int) -> dict[str, float]:
    """The part of a case's amounts that is its owners' work."""
    return {name: amount for name, amount in case.amounts(ranks).items() if name in ("call", "block")} | _of_keys(case)


def _large(cache_bytes: int) -> list[Case]:
    """Cases whose tables are four times the cache, at most half a GB."""
    most = min(4 * cache_bytes, 512 << 20)
    return [Case(4, dim, 1, 1, 4096, pool=most // (RowFormat(dim).bytes_per_row + 48)) for dim in (16, 64)]


def _miss(case: Case, held: Work, meet: Meet) -> tuple[Case, float]:
    """What the case takes beyond what it would with its rows in the cache."""
    (timed,) = time_cases([(1, case)], meet)
    return case, max(1e-9, timed.asking - held.seconds(case.amounts()))


class _Given:
    """A collection that gives the same embeddings every time: the dense net is probed without tables."""

    def __init__(self, names: list[str], dims: list[int], rows: int) -> None:
        self.embedding_names, self.embedding_dims = names, dims
        self.values = (torch.randn(rows, sum(dims)) * 0.1).requires_grad_()

    def __call__(self, ids: JaggedIds) -> Tensor:
        return self.values


class _GivenSequences:
    """The same for sequences: one row for each list of ids."""

    def __init__(self, dims: dict[str, int], rows: int) -> None:
        self.embedding_names, self.embedding_dims = list(dims), list(dims.values())
        ones = torch.ones(rows, dtype=torch.int64)
        self._values = {
            name: Jagged((torch.randn(rows, dim) * 0.1).requires_grad_(), ones) for name, dim in dims.items()
        }

    def __call__(self, ids: JaggedIds) -> dict[str, Jagged]:
        return self._values


class _GivenBoth:
    """The same with first-order weights."""

    def __init__(self, deep: _Given, linear: _Given) -> None:
        self.embedding_names, self.embedding_dims = deep.embedding_names, deep.embedding_dims
        self.deep, self.linear = deep, linear

    def __call__(self, ids: JaggedIds) -> tuple[Tensor, Tensor]:
        return self.deep(ids), self.linear(ids)


def dense(config: RunConfig, rows: Sequence[int], meet: Meet) -> tuple[list[Point], int]:
    """Seconds of forward, loss, backward and update of the dense net with so many rows, ascending, and how many
    parameters it has.
    """
    made = [_dense_step(config, n) for n in rows]
    meet()
    for step, _ in made:
        step(0)
    seconds = [median([s for s, _ in steps]) for steps in _in_turns([step for step, _ in made])]
    # Fewer rows take no longer: where they did, it was the machine.
    seconds = list(accumulate(reversed(seconds), min))[::-1]
    return [Point(rows=n, seconds=s) for n, s in zip(rows, seconds, strict=True)], made[0][1]


def _widths(config: RunConfig, *, pooled: bool) -> dict[str, int]:
    """The width of each feature that pools, or of each that does not."""
    chosen = [feature for feature in config.features if (feature.pooling != "none") is pooled]
    return {feature.name: width_of(feature, config.tables) for feature in chosen}


def dense_parameters(config: RunConfig) -> int:
    """How many parameters the dense net has."""
    return sum(p.numel() for p in _dense_net(config, 1).parameters() if p.requires_grad)


def _dense_net(config: RunConfig, rows: int) -> nn.Module:
    """The dense net over embeddings of so many rows that are given to it."""
    refuse_features_without_view(config, config.model)
    takes = spec_of(config.model).takes
    pooled, lists = _widths(config, pooled=True), _widths(config, pooled=False)
    deep = _Given(list(pooled), list(pooled.values()), rows) if "pooled" in takes and pooled else None
    sequence = _GivenSequences(lists, rows) if "sequence" in takes and lists else None
    names = [feature.name for feature in config.features]
    linear = _Given(names, [1] * len(names), rows) if "first_order" in takes else None
    both = None if deep is None or linear is None else _GivenBoth(deep, linear)
    spec = spec_of(config.model)
    alone = None if both else linear
    inputs = ModelInputs(None if both else deep, sequence, alone, len(config.dense), len(config.labels), both)
    return spec.build(config.model, inputs)


def _dense_step(config: RunConfig, rows: int) -> tuple[Step, int]:
    """A step of the dense net, and how many parameters it has."""
    model = _dense_net(config, rows)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=1e-6, fused=True)
    columns, labels = torch.randn(rows, len(config.dense)), torch.zeros(rows, len(config.labels))
    ids = JaggedIds((), torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64), rows)

    def step(number: int) -> tuple[float, float]:
        begin = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=config.train.precision == "bf16"):
            logits = model(ids, columns).float()
        optimizer.zero_grad(set_to_none=True)
        weighted_bce_with_logits(logits, labels, None).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return time.perf_counter() - begin, 0.0

    return step, sum(p.numel() for p in parameters)


def wire(world: ProcessGroup) -> Wire:
    """Probes gloo between this process and another that calls the same."""
    small, large = torch.zeros(2, dtype=torch.int64), torch.zeros(_LARGE // 4)

    def exchange(values: Tensor) -> float:
        half = len(values) // 2
        out = torch.empty_like(values)
        return _call(lambda: world.all_to_all(out, values, [half, half], [half, half]))

    def reduction(values: Tensor) -> float:
        return _call(lambda: world.all_reduce(values))

    few, many = exchange(small), exchange(large)
    reduced, reduced_many = reduction(small), reduction(large)
    return Wire(
        exchange=few,
        wait=max(0.0, _after_work(lambda: world.all_reduce(small)) - reduced),
        message=_call(lambda: _in_flight(1 - world.rank)) / _MESSAGES,
        byte=max(0.0, many - few) / (_LARGE / 2),
        reduction=reduced,
        reduced_byte=max(0.0, reduced_many - reduced) / _LARGE,
    )


def _call(call: Callable[[], None]) -> float:
    return median(_timed(call) for _ in range(_CALLS))


def _timed(call: Callable[[], None]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def _after_work(call: Callable[[], None]) -> float:
    """Mean seconds of a call that follows some milliseconds of work, as in a step: whoever is later is waited for."""
    values = torch.randn(_WORK, _WORK)
    found = []
    for _ in range(_CALLS):
        torch.mm(values, values)
        found.append(_timed(call))
    return mean(sorted(found)[: -_CALLS // 10])


def _in_flight(other: int) -> None:
    """Many small messages to another rank and from it, all under way together."""
    given, out = torch.zeros(_MESSAGES, 8), torch.empty(_MESSAGES, 8)
    works = [dist.irecv(out[n], src=other, tag=n) for n in range(_MESSAGES)]
    works += [dist.isend(given[n], dst=other, tag=n) for n in range(_MESSAGES)]
    for work in works:
        if work is not None:
            work.wait()

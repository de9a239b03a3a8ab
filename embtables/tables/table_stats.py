"""Figures of tables, of one process or added up over ranks."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from embtables.rows.content import TableContent, Words
from embtables.rows.protocol import Capture, RowAdmin
from embtables.schema import FixedTable, Table
from embtables.shard.world import World
from embtables.tables.clock import EventClock

COUNTS = (
    "waiting",
    "admitted",
    "expired",
    "evicted",
    "deleted",
    "waiting_expired",
    "waiting_evicted",
    "cold_reads",
    "surplus",
    "refused_gradients",
)
_CLOCK = ("clock_held_back", "late_batches")
_EXPIRY = (("rows", "expired"), ("waiting", "waiting_expired"))
_MAP_BYTES_PER_PLACE = 16
_SHARES = (0.0, 0.5, 0.9, 0.99, 1.0)


@dataclass(frozen=True, slots=True)
class TableStats:
    """Figures of one table.

    Attributes:
        rows: rows with a key: for a fixed table all rows.
        bytes_by_column: weights, optimizer state, bookkeeping and, for a collisionless table, the map of its keys.
        steps: updates so far.
        counts: `waiting`, `admitted`, `expired`, ..., counted since the table was first made; loading a version does
            not reset them. docs/tables.md lists them.
        load_factor: share of the key map's places that are taken; None for a fixed table.
    """

    rows: int
    dim: int
    bytes_by_column: dict[str, int]
    steps: int
    counts: dict[str, int]
    load_factor: float | None


class TableCounts:
    """What was counted of a table since it was made: by the version that it was loaded from, and in its store since.

    Args:
        number: the table's in the store.
        clock: that of its event times, if it has one.
        world: the ranks that hold the table together: each has its own counts, and rank 0 those of the version.
    """

    def __init__(self, store: RowAdmin, number: int, clock: EventClock | None, world: World) -> None:
        self._store, self._number, self._clock, self._world = store, number, clock, world
        self._former: dict[str, int] = {}

    def alive(self) -> dict[str, int]:
        """`now`, where what is past its ttl counts as expired whether or not the sweep has reached it: so the counts do
        not depend on where a run was stopped. Of a table with a ttl also `rows`."""
        found = self.now()
        if self._clock is None:
            return found
        held, alive = self._store.figures(self._number), self._store.num_alive(self._number)
        for (what, expired), count in zip(_EXPIRY, alive, strict=True):
            if expired in found:  # not every store counts
                found[expired] += held[what] - count
                found[what] = count
        return found

    def now(self) -> dict[str, int]:
        """All counts, and how many keys wait."""
        figures = self._store.figures(self._number)
        found = {name: figures[name] + self._former.get(name, 0) for name in COUNTS if name in figures}
        if self._clock is not None:
            found |= dict(zip(_CLOCK, (self._clock.held_back, self._clock.late), strict=True))
        return found

    def to_save(self) -> dict[str, int]:
        """This rank's share of what a version records: the shares of all ranks add up to the table's counts.

        Of a table with a ttl also how many rows and waiting keys are held: a snapshot leaves out those past their ttl
        that the sweep has not reached.
        """
        alike = _CLOCK if self._world.rank else ()
        found = {name: count for name, count in self.now().items() if name not in alike}
        if self._clock is None:
            found.pop("waiting", None)
        else:
            found["rows"] = self._store.figures(self._number)["rows"]
        return {name: count for name, count in found.items() if count}

    def load(self, figures: Mapping[str, int]) -> None:
        """Goes on from what a version records."""
        own = figures if self._world.rank == 0 else {}
        counted = self._store.figures(self._number)
        names = [name for name in COUNTS if name in counted and name != "waiting"]
        self._former = {name: own.get(name, 0) - counted[name] for name in names}
        if self._clock is not None:
            for held, expired in _EXPIRY if figures else ():
                if expired in counted:  # not every store counts
                    self._former[expired] += own.get(held, 0) - counted[held]
            self._clock.held_back, self._clock.late = (figures.get(name, 0) for name in _CLOCK)


class CountedCapture(Capture):
    """A table's content with its counts, both of the same moment."""

    def __init__(self, rows: Capture, figures: dict[str, int]) -> None:
        self._rows, self._figures = rows, figures

    def streamed(self) -> TableContent:
        """See Capture."""
        return replace(self._rows.streamed(), figures=self._figures)

    def close(self) -> None:
        """See Capture."""
        self._rows.close()


def stats_of(store: RowAdmin, number: int, config: Table, counts: dict[str, int]) -> TableStats:
    """What a store holds of a table.

    Args:
        number: the table's in the store.
        counts: what was counted of it; `rows` among it goes before what the store says.
    """
    figures = store.figures(number)
    rows = config.num_rows if isinstance(config, FixedTable) else counts.pop("rows", figures["rows"])
    places = figures.get("map_bytes", 0) // _MAP_BYTES_PER_PLACE
    load_factor = figures["map_entries"] / places if places else None
    return TableStats(rows, config.dim, store.num_bytes(number), store.num_steps(number), counts, load_factor)


def totals(own: Mapping[str, TableStats], growing: Container[str], world: World) -> dict[str, TableStats]:
    """What all ranks hold together. Load factors are those of this rank.

    Args:
        own: what this rank holds, the same tables at all.
        growing: the tables whose ranks count the rows they hold; for the others each rank counts all rows.
    """
    found = {}
    for name, stats in own.items():
        counted = {what: count for what, count in stats.counts.items() if what in COUNTS}
        figures = torch.tensor([stats.rows, *stats.bytes_by_column.values(), *counted.values()])
        world.all_reduce(figures)
        rows, *rest = figures.tolist()
        sizes = dict(zip(stats.bytes_by_column, rest, strict=False))
        counts = dict(zip(counted, rest[len(sizes) :], strict=True))
        rows = rows if name in growing else stats.rows
        found[name] = replace(stats, rows=rows, bytes_by_column=sizes, counts=stats.counts | counts)
    return found


def quantiles(own: Sequence[Words], world: World) -> list[list[int]]:
    """Least, p50, p90, p99 and greatest of each list, over all ranks, exact; nothing for an empty list.

    The numbers stay where they are: bit by bit, every rank counts how many of its own lie below what is tried, in 32
    sums of a few numbers over the ranks.

    Args:
        own: what this rank has of each list, (n,) in any order; as many lists at all ranks. They are sorted.
    """
    if not own:
        return []
    for values in own:
        values.sort()
    sizes = torch.tensor([len(values) for values in own], dtype=torch.int64)
    world.all_reduce(sizes)
    places = torch.tensor([[int(share * (size - 1)) for share in _SHARES] for size in sizes.tolist()])
    found = torch.zeros_like(places)
    for bit in reversed(range(32)):
        tried = found | 1 << bit
        below = [np.searchsorted(v, of.astype(np.uint32)) for v, of in zip(own, tried.numpy(), strict=True)]
        counted = torch.from_numpy(np.stack(below))
        world.all_reduce(counted)
        found = torch.where(counted <= places, tried, found)
    return [values if size else [] for values, size in zip(found.tolist(), sizes.tolist(), strict=True)]

"""Figures of tables, of one process or added up over ranks."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from embtables.clock import EventClock
from embtables.rows.content import Words
from embtables.rows.protocol import RowStore
from embtables.schema import FixedTable, Table
from embtables.shard.world import World

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
_MAP_BYTES_A_PLACE = 16
_SHARES = (0.0, 0.5, 0.9, 0.99, 1.0)


@dataclass(frozen=True, slots=True)
class TableStats:
    """Figures of one table.

    Attributes:
        rows: rows with a key: of a fixed table all.
        bytes_by_part: weights, optimizer state, bookkeeping and, of a collisionless table, the map of its keys.
        steps: updates so far.
        counts: since the tables were made: `waiting`, `admitted`, `expired`, ...; docs/tables.md lists them.
        load_factor: share of the key map's places that are taken; None of a fixed table.
    """

    rows: int
    dim: int
    bytes_by_part: dict[str, int]
    steps: int
    counts: dict[str, int]
    load_factor: float | None


def stats_of(store: RowStore, number: int, config: Table, clock: EventClock | None) -> TableStats:
    """What a store holds of a table.

    Args:
        number: the table's in the store.
        clock: that of its event times, where it has one.
    """
    figures = dict(store.figures(number))
    rows = config.num_rows if isinstance(config, FixedTable) else figures.pop("rows")
    counts = {name: figures[name] for name in COUNTS if name in figures}
    if clock is not None:
        counts |= {"clock_held_back": clock.held_back, "late_batches": clock.late}
    places = figures.get("map_bytes", 0) // _MAP_BYTES_A_PLACE
    load_factor = figures["map_entries"] / places if places else None
    return TableStats(rows, config.dim, store.num_bytes(number), store.num_steps(number), counts, load_factor)


def totals(own: Mapping[str, TableStats], growing: Container[str], world: World) -> dict[str, TableStats]:
    """What all ranks hold together. Load factors are those of this rank.

    Args:
        own: what this rank holds, the same tables at all.
        growing: the tables whose ranks tell the rows they hold; of the others each tells all of the table's.
    """
    found = {}
    for name, stats in own.items():
        counted = {what: count for what, count in stats.counts.items() if what in COUNTS}
        figures = torch.tensor([stats.rows, *stats.bytes_by_part.values(), *counted.values()])
        world.all_reduce(figures)
        rows, *rest = figures.tolist()
        parts = dict(zip(stats.bytes_by_part, rest, strict=False))
        counts = dict(zip(counted, rest[len(parts) :], strict=True))
        rows = rows if name in growing else stats.rows
        found[name] = replace(stats, rows=rows, bytes_by_part=parts, counts=stats.counts | counts)
    return found


def quantiles(own: Sequence[Words], world: World) -> list[list[int]]:
    """Least, p50, p90, p99 and greatest of each list of numbers, all ranks' together; none of an empty one. Exact.

    The numbers stay where they are: bit by bit, every rank tells how many of its own lie below what is tried, in 32
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

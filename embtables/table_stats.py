"""Figures of tables, of one process or added up over ranks."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, replace

import torch

from embtables.shard.world import World

COUNTS = (
    "waiting",
    "admitted",
    "expired",
    "crowded_out",
    "deleted",
    "waiting_expired",
    "waiting_crowded_out",
    "cold_reads",
    "surplus",
    "refused_gradients",
)


@dataclass(frozen=True, slots=True)
class TableStats:
    """Figures of one table.

    Attributes:
        rows: rows with a key: of a fixed table all.
        bytes_by_part: weights, optimizer state, bookkeeping and, of a collisionless table, the map of its keys.
        steps: updates so far.
        counts: since the tables were made: `waiting`, `admitted`, `expired`, ...; docs/tables.md lists them.
        load_factor: share of the key map's places that are taken; None of a fixed table.
        quantiles: `age` and `count` of the rows of a collisionless table: least, p50, p90, p99, greatest.
    """

    rows: int
    dim: int
    bytes_by_part: dict[str, int]
    steps: int
    counts: dict[str, int]
    load_factor: float | None
    quantiles: dict[str, list[int]]


def totals(own: Mapping[str, TableStats], growing: Container[str], world: World) -> dict[str, TableStats]:
    """What all ranks hold together. Load factors are those of this rank; quantiles are not told.

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
        found[name] = replace(stats, rows=rows, bytes_by_part=parts, counts=stats.counts | counts, quantiles={})
    return found

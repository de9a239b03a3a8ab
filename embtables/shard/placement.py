"""Which fixed tables every rank has whole; the ranks share the others. A pure function of what all ranks know.

A shared table costs a rank, for each distinct key of its part of a batch, a trip to the owner and back; and the owner
of a row that all ranks read is asked by all of them. A replicated table costs an all_reduce over all of its rows, read
or not, and every rank updates all of them. The two are even where every rank reads nearly every row (measured with two
ranks: benchmarks/RESULTS.md), and the owner of a hot row is spared where there are fewer rows than ranks.
"""

from __future__ import annotations

from collections.abc import Sequence

from embtables.ids import make_encoder
from embtables.schema import Feature, FixedTable, Table

KEYS_PER_ROW = 32


def replicated(
    tables: Sequence[Table], features: Sequence[Feature], *, batch_rows: int, world_size: int
) -> frozenset[str]:
    """Names of the tables that have no more rows than there are ranks, or that a rank reads 32 times per row and step.

    Args:
        features: what reads the tables; a list of ids counts as one.
        batch_rows: of the whole batch.
        world_size: how many ranks there are; a single one has all tables whole anyway.
    """
    if world_size == 1:
        return frozenset()
    keys, ranges = {table.name: 0 for table in tables}, {table.name: table.key_range for table in tables}
    for feature in features:
        num_keys = make_encoder(feature.encoder, ranges[feature.table], feature.name).num_keys
        keys[feature.table] += num_keys * (batch_rows // world_size)
    return frozenset(
        table.name
        for table in tables
        if isinstance(table, FixedTable) and table.num_rows <= max(world_size, keys[table.name] // KEYS_PER_ROW)
    )

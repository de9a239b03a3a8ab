"""Which row store holds a set of tables: on one process its own, with several ranks a part of each table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from embtables.errors import ConfigError
from embtables.rows.protocol import RowStore
from embtables.rows.stored_table import StoredTable
from embtables.rows.stores import PART_STORES, ROW_STORES
from embtables.schema import FixedTable
from embtables.shard.store import ShardedRowStore
from embtables.shard.world import World

RowStoreName = Literal["host", "fbgemm", "reference"]


def make_row_store(
    name: RowStoreName, stored: Sequence[StoredTable], feature_tables: Sequence[int], world: World, replicated: set[int]
) -> RowStore:
    """The row store that holds a set of tables, or this rank's part of them.

    Args:
        stored: the tables.
        feature_tables: by feature of the row store, the number of the table that it reads.
        replicated: numbers of tables of which every rank holds all rows.

    Raises:
        ConfigError: the row store cannot do what a table needs, or there is no memory for the rows.
    """
    if world.size > 1 and name not in PART_STORES:
        raise ConfigError(f"row store '{name}' cannot share tables with other ranks; set train.row_store: host")
    try:
        if world.size == 1:
            return ROW_STORES[name](stored, feature_tables)
        return ShardedRowStore(stored, feature_tables, world, PART_STORES[name], replicated)
    except MemoryError as error:
        raise _without_memory(stored, error) from error


def _without_memory(stored: Sequence[StoredTable], error: MemoryError) -> ConfigError:
    """The error for tables that did not fit: what their rows take."""
    fixed = [table for table in stored if isinstance(table.config, FixedTable)]
    needed = {table.config.name: _bytes(table) for table in fixed}
    largest = max(needed, key=lambda name: needed[name], default="")
    shown = f"; the largest is '{largest}' with {needed[largest] / 2**30:,.2f} GiB" if largest else ""
    return ConfigError(
        f"{len(stored):,} tables do not fit into memory: the rows of the fixed ones need "
        f"{sum(needed.values()) / 2**30:,.2f} GiB{shown}. {error}".rstrip(". ")
    )


def _bytes(table: StoredTable) -> int:
    assert isinstance(table.config, FixedTable)
    values = sum(table.config.dim if is_wide else 1 for is_wide in table.columns.values())
    return 4 * values * table.config.num_rows

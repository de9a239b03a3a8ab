"""First-order weights have the keys of their table's embeddings: which tables share keys, and the seed that follows.

Table `item` is read by some features, `linear.item` by the same with the same encoders and pooling. So both have one
key for each id, and one seed: a key is admitted, expires and is evicted in both at once. Each table has rows and
optimizer state of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from embtables.keyspace import table_seed
from embtables.rows.stored_table import StoredTable
from embtables.schema import Feature, Table
from embtables.schema.schema import LINEAR_PREFIX


def stored_tables(
    tables: Sequence[Table], features: Sequence[Feature], seed: int, *, shares_keys: bool = True
) -> tuple[StoredTable, ...]:
    """How row stores and files have the tables of one model, in their order.

    Args:
        features: what reads the tables.
        seed: of the run.
        shares_keys: false: each table has a seed and keys of its own, as older builds had them.
    """
    found = []
    names = {table.name for table in tables}
    for table in tables:
        leader = table.name.removeprefix(LINEAR_PREFIX)
        is_linear = leader != table.name and leader in names
        if shares_keys and is_linear and _read_alike(features, leader, table.name):
            found.append(StoredTable(table, table_seed(seed, leader), keys_of=leader))
        else:
            found.append(StoredTable(table, table_seed(seed, table.name)))
    return tuple(found)


def _read_alike(features: Sequence[Feature], leader: str, linear: str) -> bool:
    """Whether every lookup of the one comes with the same lookup of the other: of sequences only the first-order
    weights are pooled, and a model may look up either first."""
    of_leader, of_linear = (
        [f.model_copy(update={"table": ""}) for f in features if f.table == name] for name in (leader, linear)
    )
    return of_leader == of_linear and all(f.pooling != "none" for f in of_leader)

"""Bytes a rank holds: rows as the native store lays them out (table_rows.cpp, key_map.cpp, key_index.h)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from embtables.keyspace import NUM_BUCKETS
from embtables.rows.optimizers import optimizer_spec
from embtables.rows.row_format import RowFormat
from embtables.schema import CollisionlessTable, FixedTable, MinCount, Table

_META_BYTES = 16  # of a row: the sum of rowwise Adagrad, when it changed, how often, when it was seen
_KEY_BYTES = 8
_SHARDS, _LINE_BYTES, _ENTRIES = 32, 64, 4  # of the key map
_INDEX_KEYS = 448  # keys a line of the index of a fixed table's part
_MOST_LISTED = 128 << 20  # bytes of the list of rows touched since a cut


def row_bytes(table: Table) -> int:
    """Bytes of a row: weight, optimizer state, bookkeeping, and its key where the table grows."""
    arenas = sum(optimizer_spec(table.optimizer).parts.values())
    of = RowFormat(table.dim)
    key = _KEY_BYTES if isinstance(table, CollisionlessTable) else 0
    return of.value_bytes * of.stride * arenas + _META_BYTES + key


def map_bytes(entries: float) -> int:
    """Bytes of a key map into which so many keys were put one after the other."""
    return sum(_shard_lines(shard, entries / _SHARDS) for shard in range(_SHARDS)) * _LINE_BYTES


def _shard_lines(shard: int, entries: float) -> int:
    lines = 2
    while math.ceil(entries) > lines * _ENTRIES * (720 + 80 * shard // _SHARDS) // 1000:
        lines += 2 * lines // 5 + 1
    return lines


@dataclass(frozen=True)
class TableMemory:
    """Bytes that a rank holds of a table.

    Attributes:
        rows: weights, optimizer state and bookkeeping.
        keys: the map or index of its keys, waiting ones in it, and a sketch of these.
        listed: at most, the list of rows touched since the last version.
        num_rows: of the rank.
    """

    rows: int
    keys: int
    listed: int
    num_rows: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.rows + self.keys + self.listed


def table_memory(table: Table, rows: float, waiting: float, ranks: int, *, replicated: bool = False) -> TableMemory:
    """What the fullest of the ranks holds of a table with `rows` rows and `waiting` waiting keys.

    Rows lie by a hash of their key: the fullest of N ranks has its bucket's share and three deviations more.
    """
    parts = 1 if replicated else ranks
    own, own_waiting = (_fullest(n, parts) for n in (rows, waiting))
    num_rows = math.ceil(min(own, rows))
    if isinstance(table, FixedTable):
        keys = -(-table.num_rows // _INDEX_KEYS) * _LINE_BYTES if parts > 1 else 0
    else:
        num_rows += 1  # the cold row
        exact = isinstance(table.admission, MinCount) and table.admission.counting == "exact"
        keys = map_bytes(own + (own_waiting if exact else 0.0)) + _sketch_bytes(table) // parts
    listed = min(4 * num_rows, _MOST_LISTED) if table.trainable else 0
    return TableMemory(num_rows * row_bytes(table), keys, listed, num_rows)


def _fullest(rows: float, ranks: int) -> float:
    if ranks == 1 or rows <= 0.0:
        return rows
    mean = rows * math.ceil(NUM_BUCKETS / ranks) / NUM_BUCKETS
    return mean + 3.0 * math.sqrt(mean)


def _sketch_bytes(table: CollisionlessTable) -> int:
    """Of a whole table's sketch. Each rank reserves it all; what its buckets do not touch takes no memory."""
    admission = table.admission
    if not isinstance(admission, MinCount) or admission.counting == "exact":
        return 0
    bits = 4 if admission.count < 16 else 8 if admission.count < 256 else 16
    share = -(-admission.max_waiting // (2 * NUM_BUCKETS))
    blocks = -(-share // (64 // bits))
    return NUM_BUCKETS * (2 * blocks * 64 + 12)

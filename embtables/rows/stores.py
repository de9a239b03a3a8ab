"""Row stores: what keeps rows and updates them. `ROW_STORES` is the one table of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from embtables.rows.fbgemm.store import FbgemmRowStore
from embtables.rows.host.store import HostRowStore
from embtables.rows.protocol import Ability, Changes, KeyState, Lookup, PartStore, RowStore
from embtables.rows.reference.store import ReferenceRowStore
from embtables.rows.stored_table import StoredTable

__all__ = [
    "PART_STORES",
    "ROW_STORES",
    "Ability",
    "Changes",
    "FbgemmRowStore",
    "HostRowStore",
    "KeyState",
    "Lookup",
    "PartStore",
    "ReferenceRowStore",
    "RowStore",
    "StoredTable",
]

ROW_STORES: dict[str, Callable[[Sequence[StoredTable], Sequence[int]], RowStore]] = {
    "host": HostRowStore,
    "fbgemm": FbgemmRowStore,
    "reference": ReferenceRowStore,
}

# Those that can hold a part of the key space.
PART_STORES: dict[str, Callable[[Sequence[StoredTable], Sequence[int]], PartStore]] = {
    "host": HostRowStore,
    "reference": ReferenceRowStore,
}

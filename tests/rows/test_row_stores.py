"""Every row store keeps the contract."""

from __future__ import annotations

from collections.abc import Sequence

from embtables.rows import FbgemmRowStore, ReferenceRowStore, RowStore, StoredTable
from tests.contracts.row_store import RowStoreContract


class TestReference(RowStoreContract):
    def build(self, stored: list[StoredTable], slots: Sequence[int]) -> RowStore:
        return ReferenceRowStore(stored, slots)


class TestFbgemm(RowStoreContract):
    def build(self, stored: list[StoredTable], slots: Sequence[int]) -> RowStore:
        return FbgemmRowStore(stored, slots)

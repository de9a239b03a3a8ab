"""Every row store keeps the contract; the host store on every instruction set that this machine has."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from embtables.native import _core
from embtables.rows import FbgemmRowStore, HostRowStore, ReferenceRowStore, RowStore, StoredTable
from tests.contracts.collisionless import CollisionlessContract
from tests.contracts.row_store import RowStoreContract


class TestReference(RowStoreContract, CollisionlessContract):
    def build(self, stored: list[StoredTable], slots: Sequence[int]) -> RowStore:
        return ReferenceRowStore(stored, slots)


class TestFbgemm(RowStoreContract):
    def build(self, stored: list[StoredTable], slots: Sequence[int]) -> RowStore:
        return FbgemmRowStore(stored, slots)


@pytest.mark.parametrize("isa", _core.available_isas())
class TestHost(RowStoreContract, CollisionlessContract):
    @pytest.fixture(autouse=True)
    def _forced(self, isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("embtables.rows.host.isa", lambda: isa)

    def build(self, stored: list[StoredTable], slots: Sequence[int]) -> RowStore:
        return HostRowStore(stored, slots)

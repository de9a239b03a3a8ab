"""Every row store keeps the contract; the host store on every instruction set that this machine has."""

from __future__ import annotations

import gc
from collections.abc import Sequence

import pytest
import torch

from embtables.errors import DataError, StateError
from embtables.native import _core
from embtables.rows.fbgemm.store import FbgemmRowStore
from embtables.rows.host.store import HostRowStore
from embtables.rows.protocol import RowStore
from embtables.rows.reference.store import ReferenceRowStore
from embtables.rows.stored_table import StoredTable
from embtables.schema import CollisionlessTable, FixedTable, Normal, Sgd
from tests.contracts.collisionless import CollisionlessContract
from tests.contracts.row_store import RowStoreContract
from tests.contracts.single import gather, train_rows


class TestReference(RowStoreContract, CollisionlessContract):
    def build(self, stored: list[StoredTable], feature_tables: Sequence[int]) -> RowStore:
        return ReferenceRowStore(stored, feature_tables)


class TestFbgemm(RowStoreContract):
    def build(self, stored: list[StoredTable], feature_tables: Sequence[int]) -> RowStore:
        return FbgemmRowStore(stored, feature_tables)


@pytest.mark.parametrize("isa", _core.available_isas())
class TestHost(RowStoreContract, CollisionlessContract):
    @pytest.fixture(autouse=True)
    def _forced(self, isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("embtables.rows.host.store.isa", lambda: isa)

    def build(self, stored: list[StoredTable], feature_tables: Sequence[int]) -> RowStore:
        return HostRowStore(stored, feature_tables)

    @pytest.mark.parametrize("key", [9, -1, 2**32, 2**63 - 1, -(2**63)])
    def test_a_key_outside_a_fixed_table_is_refused(self, key: int) -> None:
        table = FixedTable(name="t", dim=4, num_rows=9, optimizer=Sgd(learning_rate=0.1))
        store = self.build([StoredTable(table, 1)], [0])
        for look_up in (gather, train_rows):
            with pytest.raises(DataError, match=rf"key {key} is outside 0..8"):
                look_up(store, 0, torch.tensor([0, key, 8]))
        with pytest.raises(DataError, match=rf"key {key} is outside"):
            store.read(0, "weight", torch.tensor([key]))

    def test_forgotten_tombstones_are_not_missed_in_silence(self) -> None:
        table = CollisionlessTable(name="t", dim=4, optimizer=Sgd(learning_rate=0.1), max_rows=4)
        store = self.build([StoredTable(table, 1)], [0])
        cuts = []
        for start in range(0, 20, 4):
            train_rows(store, 0, torch.arange(start, start + 4))
            store.update(1.0)
            cuts.append(store.draw_cut())
        assert len(store.changes(0, cuts[1]).tombstones) == 12
        store.forget_changes(cuts[2])
        assert len(store.changes(0, cuts[2]).tombstones) == 8
        with pytest.raises(StateError, match=r"table t: changes since cut 2 are not known any more; a snapshot"):
            store.changes(0, cuts[1])
        # The same where a saved table took the place of this one.
        content = store.capture(0, None).content()
        store.clear(0)
        store.apply(0, content)
        with pytest.raises(StateError, match="a snapshot of the table is needed"):
            store.changes(0, cuts[-1])
        assert len(store.changes(0, store.draw_cut()).keys) == 0

    def test_large_outputs_are_used_again_only_when_nothing_holds_them(self) -> None:
        table = FixedTable(name="t", dim=64, num_rows=9, optimizer=Sgd(learning_rate=0.1), initializer=Normal(std=1.0))
        store = self.build([StoredTable(table, 1)], [0])
        keys = torch.arange(4096) % 9
        first = gather(store, 0, keys)
        kept, view = first.clone(), first[5:7]
        place = first.data_ptr()
        del first
        second = gather(store, 0, keys.flip(0))
        assert second.data_ptr() != place  # the view still holds the memory
        assert torch.equal(view, kept[5:7])
        assert torch.equal(second, kept.flip(0))
        del view
        gc.collect()
        third = gather(store, 0, keys)
        assert third.data_ptr() == place
        assert torch.equal(third, kept)

"""Stores of parts of tables: the contract, and what the native store alone promises."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from embtables.errors import ConfigError, DataError, StateError
from embtables.keyspace import buckets_of
from embtables.native import _core
from embtables.rows.fbgemm.store import FbgemmRowStore
from embtables.rows.host.store import HostRowStore
from embtables.rows.protocol import PartStore, Segments
from embtables.rows.reference.store import ReferenceRowStore
from embtables.rows.stored_table import StoredTable
from embtables.schema import FixedTable, Sgd
from tests.contracts.parts import PartsContract

TABLE = FixedTable(name="t", dim=4, num_rows=1000, optimizer=Sgd(learning_rate=0.1))


class TestReference(PartsContract):
    def build(self, stored: list[StoredTable], feature_tables: Sequence[int]) -> PartStore:
        return ReferenceRowStore(stored, feature_tables)


@pytest.mark.parametrize("isa", _core.available_isas())
class TestHost(PartsContract):
    @pytest.fixture(autouse=True)
    def _forced(self, isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("embtables.rows.host.store.isa", lambda: isa)

    def build(self, stored: list[StoredTable], feature_tables: Sequence[int]) -> PartStore:
        return HostRowStore(stored, feature_tables)

    def test_an_error_says_whose_the_key_is(self) -> None:
        store = HostRowStore([StoredTable(TABLE, 3, (200, 900))], [0])
        key = int(np.flatnonzero(buckets_of(np.arange(1000), 3) >= 900)[0])
        bucket = int(buckets_of(np.array([key]), 3)[0])
        with pytest.raises(DataError, match=rf"key {key} is of bucket {bucket}, this part holds 200\.\.899$"):
            store.train_rows([0], [torch.tensor([key])])
        with pytest.raises(DataError, match=r"key 1000 is outside 0\.\.999"):
            store.train_rows([0], [torch.tensor([1000])])
        whole = HostRowStore([StoredTable(TABLE, 3)], [0])
        with pytest.raises(StateError, match="is of bucket"):
            store.apply(0, whole.capture(0, None).content())

    def test_a_key_occurs_at_least_once(self) -> None:
        store = HostRowStore([StoredTable(TABLE, 3)], [0])
        with pytest.raises(ValueError, match="at least once"):
            segments = Segments((0,), np.array([0, 1]), np.array([0]))
            store.train_owned(segments, torch.tensor([1]), torch.tensor([0], dtype=torch.int32))

    @pytest.mark.parametrize(
        ("bounds", "places", "what"),
        [
            ([0, 2], [1], "within the message"),
            ([0, 1, 2], [0, 5], "within the message"),
            ([0, 1, 2], [0, -1], "needs a place"),
            ([0, 2, 1, 2], [0, 0, 0], "must not fall"),
        ],
    )
    def test_messages_that_do_not_fit_are_refused(self, bounds: list[int], places: list[int], what: str) -> None:
        store = HostRowStore([StoredTable(TABLE, 3)], [0])
        segments = Segments((0,), np.array(bounds), np.array(places))
        kept = store.train_owned(segments, torch.tensor([1, 2]), None)
        with pytest.raises(ValueError, match=what):
            kept.rows_into(torch.zeros(8))


def test_fbgemm_holds_whole_tables_alone() -> None:
    with pytest.raises(ConfigError, match=r"table t: fbgemm holds only whole tables"):
        FbgemmRowStore([StoredTable(TABLE, 3, (0, 512))], [0])

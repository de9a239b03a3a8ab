"""Tables whose row store holds a part of the key space load their buckets of a chain, and are read and written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from embtables import Tables
from embtables.errors import StateError
from embtables.keyspace import Buckets, buckets_of
from embtables.rows.content import restrict
from embtables.rows.host.store import HostRowStore
from embtables.rows.protocol import RowStore
from embtables.rows.reference.store import ReferenceRowStore
from embtables.rows.stored_table import StoredTable
from embtables.rows.stores import ROW_STORES
from embtables.state.folder.version_folder import StateFolder
from embtables.state.read.load import load as load_version
from tests.contents import flat_content, same
from tests.state.versions_for_tests import tables, write

Store = Callable[[Sequence[StoredTable], Sequence[int]], RowStore]


def part(store: Store, buckets: Buckets, monkeypatch: pytest.MonkeyPatch) -> Tables:
    def build(stored: Sequence[StoredTable], feature_tables: Sequence[int]) -> RowStore:
        return store([replace(table, buckets=buckets) for table in stored], feature_tables)

    monkeypatch.setitem(ROW_STORES, "host", build)
    return tables()


@pytest.mark.parametrize("buckets", [(0, 300), (300, 301), (301, 1024)])
@pytest.mark.parametrize("store", [HostRowStore, ReferenceRowStore])
def test_a_chain_is_loaded_by_buckets(
    store: Store, buckets: Buckets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, versions = write(tmp_path, 3)
    assert versions[1].parent == 1
    loaded = part(store, buckets, monkeypatch)
    load_version(StateFolder(tmp_path), versions, loaded, buckets)
    for table in made.stored:
        name = table.config.name
        expected = flat_content(restrict(made.table_content(name), table.seed, buckets))
        found = flat_content(loaded.table_content(name))
        # The reference store has no counts; of a table that decays it has weights themselves, not those at a scale.
        is_reference = store is ReferenceRowStore
        unknown = ("counts", "sketch", "columns/weight", "cold/weight") if is_reference else ()  # as the dict has them
        assert same(
            {n: found[n] for n in found if n not in unknown}, {n: expected[n] for n in found if n not in unknown}
        )
        keys, whole = loaded.keys(name), made.keys(name)
        assert keys is not None
        whole = torch.arange(60) if whole is None else whole
        of = buckets_of(whole.numpy(), table.seed)
        mine = torch.from_numpy((of >= buckets[0]) & (of < buckets[1]))
        assert torch.equal(keys, whole[mine])
        rounding = {"rtol": 1e-5, "atol": 1e-7} if is_reference else {"rtol": 0.0, "atol": 0.0}
        torch.testing.assert_close(loaded.weight(name), made.weight(name)[mine], **rounding)
    keys = loaded.keys("fixed")
    assert keys is not None
    loaded.set_weight("fixed", torch.full((len(keys), 4), 2.0))
    assert torch.equal(loaded.weight("fixed"), torch.full((len(keys), 4), 2.0))
    with pytest.raises(StateError, match="the table needs"):
        loaded.set_weight("fixed", torch.zeros(60, 4))

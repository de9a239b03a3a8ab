"""Changes since a cut, as a copy of a table elsewhere reads them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from embtables import CollisionlessTable, EmbeddingBagCollection, Feature, Tables
from embtables.errors import ConfigError
from embtables.schema import Sgd
from tests.embtables.lookup.collections_for_tests import kjt, schema_tables


@pytest.mark.parametrize("store", ["host", "reference"])
def test_a_copy_follows_by_changes_alone(store: Any) -> None:
    """An index over the rows elsewhere, kept up to date without ever reading a table whole again."""
    tables = Tables(
        [CollisionlessTable(name="t", dim=4, optimizer=Sgd(learning_rate=0.1), max_rows=16)],
        [Feature(name="a", table="t")],
        seed=3,
        row_store=store,
    )
    view = EmbeddingBagCollection.over(tables)
    copy: dict[int, torch.Tensor] = {}
    cut = tables.draw_cut()
    index = tables.cuts.consumer("index")
    index.hold(cut)
    for seed in range(12):
        view(kjt(["a"], 4, 40, seed=seed)).values().sum().backward()
        tables.step()
        if seed % 3 == 2:
            changes, cut = tables.changes("t", cut), tables.draw_cut()
            for key in changes.tombstones.tolist():
                copy.pop(key, None)
            copy |= dict(zip(changes.keys.tolist(), changes.weight, strict=True))
            index.hold(cut)
    keys = tables.keys("t")
    assert keys is not None
    assert sorted(copy) == keys.tolist()
    assert torch.equal(torch.stack([copy[key] for key in sorted(copy)]), tables.weight("t"))


def test_fbgemm_says_that_it_knows_no_cuts() -> None:
    tables = schema_tables("fbgemm")
    with pytest.raises(ConfigError, match=r"set train\.row_store: host"):
        tables.draw_cut()
    with pytest.raises(ConfigError, match=r"set train\.row_store: host"):
        tables.changes("t", 1)

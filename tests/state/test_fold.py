"""Rows of a chain as Arrow tables: those that the tables have when they load it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from embtables import CollisionlessTable, Feature, Tables
from embtables.errors import StateError
from embtables.schema import Identity, Sgd
from embtables.state.folder.version_folder import StateFolder
from embtables.state.read import merge
from embtables.state.read.export import parts_of_chain, rows_of_chain
from tests.state.versions_for_tests import open_chain, write


@pytest.mark.parametrize("rows_at_a_time", [7, 1 << 20])
def test_rows_are_those_of_the_tables(tmp_path: Path, rows_at_a_time: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge, "KEYS_AT_A_TIME", rows_at_a_time)
    made, _ = write(tmp_path, 4)
    state = StateFolder(tmp_path)
    chain = state.chain("resume", 4)
    for table, content in made.content().items():
        rows = rows_of_chain(state, chain, table)
        assert rows.column_names == ["key", *content.parts, "seen", "count"]
        expected = {"key": content.keys, **content.parts, "seen": content.seen, "count": content.counts}
        for name, values in expected.items():
            column = rows[name].combine_chunks()
            found = column.flatten() if values.ndim == 2 else column
            assert np.array_equal(found.to_numpy(), values.reshape(-1))
        some = rows_of_chain(state, chain, table, ["count", "key"])
        assert some.equals(rows.select(["count", "key"]))
        parts = [part.num_rows for part in parts_of_chain(state, chain, table)]
        assert sum(parts) == len(content.keys)
        assert max(parts) <= rows_at_a_time


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    write(tmp_path, 1)
    state = StateFolder(tmp_path)
    chain = state.chain("resume", 1)
    with pytest.raises(StateError, match="version resume-1: has no table 'nope'; it has: counts, fixed, grows"):
        rows_of_chain(state, chain, "nope")
    with pytest.raises(StateError, match="has no column 'nope'; it has: key, weight, sum, seen, count"):
        rows_of_chain(state, chain, "fixed", ["nope"])


def test_a_table_may_be_called_like_a_kind_of_file(tmp_path: Path) -> None:
    table = CollisionlessTable(name="my.rows.t", dim=2, optimizer=Sgd(learning_rate=0.1))
    made = Tables([table], [Feature(name="f", table="my.rows.t", encoder=Identity())], seed=3)
    state = StateFolder(tmp_path)
    with open_chain(state, made) as chain:
        made.set("my.rows.t", torch.arange(9), torch.ones(9, 2))
        chain.cut({}, {})
        made.delete("my.rows.t", torch.arange(4))
        chain.cut({}, {})
    assert sorted(rows_of_chain(state, state.chain("resume", 2), "my.rows.t")["key"].to_pylist()) == [4, 5, 6, 7, 8]

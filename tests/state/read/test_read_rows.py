"""Rows of a version as Arrow batches: those that the tables have when they load it; without torch."""

from __future__ import annotations

import doctest
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from embtables import CollisionlessTable, Feature, Tables
from embtables.errors import ConfigError, StateError
from embtables.schema import Identity, Sgd
from embtables.state import find_version, list_versions, open_folder, read_rows
from embtables.state.folder.version_folder import LeaseHolder, StateFolder
from embtables.state.read import merge
from tests.state.versions_for_tests import open_chain, write


def whole(batches: Iterator[pa.RecordBatch]) -> pa.Table:
    return pa.Table.from_batches(batches)


@pytest.mark.parametrize("rows_at_a_time", [7, 1 << 20])
def test_rows_are_those_of_the_tables(tmp_path: Path, rows_at_a_time: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge, "KEYS_AT_A_TIME", rows_at_a_time)
    made, _ = write(tmp_path, 4)
    state = StateFolder(tmp_path)
    for table, stored in made.content().items():
        content = stored.unscaled()
        rows = whole(read_rows(state, table))
        assert rows.column_names == ["key", *content.columns, "seen", "count"]
        expected = {"key": content.keys, **content.columns, "seen": content.seen, "count": content.counts}
        for name, values in expected.items():
            column = rows[name].combine_chunks()
            found = column.flatten() if values.ndim == 2 else column
            assert np.array_equal(found.to_numpy(), values.reshape(-1))
        some = whole(read_rows(state, table, ["count", "key"]))
        assert some.equals(rows.select(["count", "key"]))
        parts = [part.num_rows for part in read_rows(state, table)]
        assert sum(parts) == len(content.keys)
        assert max(parts) <= rows_at_a_time


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    write(tmp_path, 1)
    state = StateFolder(tmp_path)
    with pytest.raises(StateError, match="version resume-1: has no table 'nope'; it has: counts, fixed, grows"):
        read_rows(state, "nope")
    with pytest.raises(StateError, match="has no column 'nope'; it has: key, weight, sum, seen, count"):
        read_rows(state, "fixed", ["nope"])


def test_a_table_may_be_called_like_a_kind_of_file(tmp_path: Path) -> None:
    table = CollisionlessTable(name="my.rows.t", dim=2, optimizer=Sgd(learning_rate=0.1))
    made = Tables([table], [Feature(name="f", table="my.rows.t", encoder=Identity())], seed=3)
    state = StateFolder(tmp_path)
    with open_chain(state, made) as chain:
        made.set("my.rows.t", torch.arange(9), torch.ones(9, 2))
        chain.cut({}, {})
        made.delete("my.rows.t", torch.arange(4))
        chain.cut({}, {})
    assert sorted(whole(read_rows(state, "my.rows.t"))["key"].to_pylist()) == [4, 5, 6, 7, 8]


def test_versions_are_listed_and_picked_by_name(tmp_path: Path) -> None:
    _, manifests = write(tmp_path / "checkpoints", 3)
    folder = open_folder(tmp_path)
    assert list_versions(folder) == ["resume-1", "resume-2", "resume-3"]
    with LeaseHolder(folder) as writer:
        writer.pin("best", manifests[1])
    assert (find_version(folder).name, find_version(folder, "best").name) == ("resume-3", "resume-2")
    second = find_version(folder, "resume-2")
    assert second.chain == tuple(manifests[:2])
    assert second.tables == ("counts", "fixed", "grows")
    counts = [whole(read_rows(find_version(folder, f"resume-{n}"), "fixed", ["count"])) for n in (1, 2, 3)]
    updates = [sum(each["count"].to_pylist()) for each in counts]
    assert updates[0] < updates[1] < updates[2]
    for name in ("resume-4", "serving-1"):
        with pytest.raises(StateError, match=f"there is no version {name}"):
            find_version(folder, name)
    for name in ("first", "resume", "resume-x", "export-1"):
        with pytest.raises(ConfigError, match="is not a version: give resume-<n>, serving-<n>, best"):
            find_version(folder, name)
    with pytest.raises(ConfigError, match="has no versions"):
        open_folder(tmp_path / "elsewhere")


WITHOUT_TORCH = """
import sys
from embtables import state
folder = state.open_folder(sys.argv[1])
version = state.find_version(folder)
rows = sum(batch.num_rows for table in version.tables for batch in state.read_rows(version, table))
print(rows, "torch" in sys.modules)
"""


def test_rows_are_read_without_torch(tmp_path: Path) -> None:
    made, _ = write(tmp_path, 2)
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(sum(len(c.keys) for c in made.content().values())), "False"]


def test_the_example_runs() -> None:
    (example,) = doctest.DocTestFinder().find(read_rows, "read_rows", globs={})
    assert len(example.examples) > 5
    assert doctest.DocTestRunner().run(example).failed == 0

"""Two versions held against each other: what is reported is what two dicts of rows give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embtables import CollisionlessTable
from embtables.keyspace import bucket_offsets, bucket_order
from embtables.rows.content import TableContent
from embtables.rows.stored_table import StoredTable
from embtables.schema import Adagrad, RowwiseAdagrad
from embtables.state.folder.version_folder import LeaseHolder, StateFolder, VersionKind
from embtables.state.format.version import Version
from embtables.state.read import merge
from embtables.state.read.load import load as load_version
from embtables.state.read.merge import MergedTable
from embtables.state.tools.compact import compact
from embtables.state.tools.compare import TableDifference, compare_content, compare_rows, compare_tensors
from embtables.state.write.commit_across_ranks import write_version
from tests.state.versions_for_tests import tables, write


def compared(folder: Path, a: int, b: int, table: str) -> TableDifference:
    state = StateFolder(folder)
    with (
        MergedTable(state, state.chain("resume", a), table) as first,
        MergedTable(state, state.chain("resume", b), table) as second,
    ):
        found = compare_rows(first, second)
    assert found is not None
    return found


def rows_by_key(folder: Path, number: int, table: str) -> dict[int, dict[str, np.ndarray]]:
    state, made = StateFolder(folder), tables()
    load_version(state, state.chain("resume", number), made)
    content = made.content()[table].unscaled()
    columns = {**content.columns, "seen": content.seen, "count": content.counts}
    return {int(key): {n: v[row] for n, v in columns.items()} for row, key in enumerate(content.keys)}


@pytest.mark.parametrize("rows_at_a_time", [3, 1 << 20])
@pytest.mark.parametrize("table", ["fixed", "grows", "counts"])
def test_rows_are_counted_as_two_dicts_say(
    tmp_path: Path, table: str, rows_at_a_time: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, 4)
    monkeypatch.setattr(merge, "KEYS_AT_A_TIME", rows_at_a_time)
    for a, b in ((1, 4), (4, 2), (3, 3)):
        found = compared(tmp_path, a, b, table)
        first, second = rows_by_key(tmp_path, a, table), rows_by_key(tmp_path, b, table)
        both = first.keys() & second.keys()
        assert found.rows == (len(first), len(second))
        assert found.only == (len(first.keys() - both), len(second.keys() - both))
        names = list(next(iter(first.values())))
        other = {n: {k for k in both if first[k][n].tobytes() != second[k][n].tobytes()} for n in names}
        assert found.differs == {n: len(keys) for n, keys in other.items()}
        changed = set().union(*(keys for n, keys in other.items() if n not in ("seen", "count")))
        assert (found.changed, found.same) == (len(changed), len(both) - len(changed))
        norms = {k: np.linalg.norm(second[k]["weight"].astype(float) - first[k]["weight"]) for k in other["weight"]}
        expected = sorted(norms.items(), key=lambda n: (-n[1], n[0]))[:10]
        assert [key for key, _ in found.largest] == [key for key, _ in expected]
        assert np.allclose([n for _, n in found.largest], [n for _, n in expected])
        assert not found.layout
    assert compared(tmp_path, 1, 4, table).changed > 0


def test_a_compacted_version_is_the_same(tmp_path: Path) -> None:
    write(tmp_path, 3)
    with LeaseHolder(StateFolder(tmp_path)) as writer:
        compact(writer, "resume", keep=9)
    for table in ("fixed", "grows", "counts"):
        found = compared(tmp_path, 3, 4, table)
        assert (found.only, found.changed, found.rows[0]) == ((0, 0), 0, found.same)
        assert set(found.differs.values()) == {0}


def one_table(
    folder: Path, seed: int, keys: list[int], weight: float, *, special: float = 0.0, count: int = 1, **config: Any
) -> MergedTable:
    """A version with a row of equal weights for each key, `special` ones for key 99."""
    table = CollisionlessTable(name="t", **{"dim": 2, "optimizer": RowwiseAdagrad(learning_rate=0.1), **config})
    stored = StoredTable(table, seed)
    found = np.array(keys, np.int64)
    found = found[bucket_order(found, seed)]
    n, ones = len(keys), np.ones(len(keys), np.uint32)
    columns = {name: np.full((n, table.dim) if wide else n, 0.5, np.float32) for name, wide in stored.columns.items()}
    columns["weight"] = np.full((n, table.dim), weight, np.float32)
    columns["weight"][found == 99] = special
    begins = bucket_offsets(found, seed)
    cold = {name: values[:0] for name, values in columns.items()}
    state = StateFolder(folder)
    with LeaseHolder(state) as writer:
        content = TableContent(found, columns, ones, ones * np.uint32(count), cold=cold, begins=begins)
        version = write_version(writer, VersionKind("resume"), [stored], Version({"t": content}))
    return MergedTable(state, [version], "t")


def test_other_dimensions_and_optimizers_are_reported_and_the_rest_compared(tmp_path: Path) -> None:
    a = one_table(tmp_path / "a", 1, [1, 2, 3], 0.0)
    b = one_table(tmp_path / "b", 1, [2, 3, 4], 0.0, dim=4, optimizer=Adagrad(learning_rate=0.1))
    c = one_table(tmp_path / "c", 1, [2, 3], 3.0, dim=4, optimizer=RowwiseAdagrad(learning_rate=0.1))
    with a, b, c:
        found = compare_rows(a, b)
        assert found is not None
        assert found.layout == ["dim 2 in A, 4 in B", "optimizer state: sum by row in A, sum by weight in B"]
        assert found.only == (1, 1)
        assert found.differs == {"seen": 0, "count": 0}
        found = compare_rows(a, c)
        assert found is not None
        assert found.differs == {"sum": 0, "seen": 0, "count": 0}
        found = compare_rows(b, c)
        assert found is not None
        assert found.differs == {"weight": 2, "seen": 0, "count": 0}
        assert found.largest == [(2, 6.0), (3, 6.0)]


def test_a_row_that_was_only_counted_is_the_same(tmp_path: Path) -> None:
    with one_table(tmp_path / "a", 1, [1, 2], 1.0) as a, one_table(tmp_path / "b", 1, [1, 2], 1.0, count=5) as b:
        found = compare_rows(a, b)
    assert found is not None
    assert (found.same, found.changed, found.differs) == (2, 0, {"weight": 0, "sum": 0, "seen": 0, "count": 2})


@pytest.mark.parametrize("special", [1000.0, float("inf"), float("nan")])
def test_the_largest_change_comes_first_even_where_it_is_no_number(tmp_path: Path, special: float) -> None:
    keys = [*range(20), 99]
    a = one_table(tmp_path / "a", 1, keys, 0.0)
    b = one_table(tmp_path / "b", 1, keys, 1.0, special=special)
    with a, b:
        found, itself = compare_rows(a, b), compare_rows(b, b)
    assert found is not None
    assert [key for key, _ in found.largest] == [99, *range(9)]
    assert itself is not None
    assert itself.same == 21


def test_tables_of_different_seeds_are_not_compared(tmp_path: Path) -> None:
    with (
        one_table(tmp_path / "a", 1, [1, 2, 3, 4, 5], 0.0) as a,
        one_table(tmp_path / "b", 2, [1, 2, 3, 4, 5], 0.0) as b,
    ):
        assert compare_rows(a, b) is None


def test_tensors() -> None:
    ones = np.ones(3, np.float32)
    a = {
        "same": ones,
        "moved": ones,
        "gone": ones,
        "shape": ones,
        "type": ones,
        "nan": ones,
        "bytes": np.arange(3, dtype=np.uint8),
    }
    b = {
        "same": ones,
        "moved": np.array([1, 1, -1.5], np.float32),
        "new": ones,
        "shape": np.ones((3, 1), np.float32),
        "type": np.ones(3),
        "nan": np.array([np.nan, 1, 1], np.float32),
        "bytes": np.array([0, 1, 255], np.uint8),
    }
    assert compare_tensors(a, b) == {
        "bytes": 253.0,
        "gone": "only in A",
        "moved": 2.5,
        "nan": None,
        "new": "only in B",
        "shape": "float32 [3] in A, float32 [3, 1] in B",
        "type": "float32 [3] in A, float64 [3] in B",
    }


def test_content() -> None:
    a = {"schema": {"tables": [{"dim": 4}, {"dim": 8}], "x": 1}, "state": [1, 2], "long": "y" * 99}
    b = {"schema": {"tables": [{"dim": 4}, {"dim": 16}]}, "state": [1], "long": "z"}
    assert list(compare_content(a, b)) == [
        f"long: '{'y' * 56}... in A, 'z' in B",
        "schema.tables.1.dim: 8 in A, 16 in B",
        "schema.x: 1 in A, None in B",
        "state: [1, 2] in A, [1] in B",
    ]
    assert not list(compare_content(a, a))

"""Versions for servers as files: rounded weights in every tool, side tables, and a chain that followers read once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from embtables import Follower, LeaseHolder, StateFolder, Tables, VersionWriter
from embtables.errors import ConfigError, StateError
from embtables.pipelines.inspection.words import facts
from embtables.pipelines.state_tools.diff import diff
from embtables.rows.content import scaled
from embtables.state.format.manifest import Manifest
from embtables.state.format.side_file import SideFile, parse_side_file
from embtables.state.format.weight_dtype import WeightDtype
from embtables.state.read.range_reader import RangeReader
from embtables.state.read.saved_version import find_version
from embtables.state.read.version_reader import read_version
from embtables.state.tools.compact import compact
from embtables.state.tools.figures import figures_of
from tests.state.versions_for_tests import tables, train, weights_by_key

ROUNDED: tuple[WeightDtype, ...] = ("bf16", "fp16", "int8")
SIDES = [{"file": "side.0.arrow", "name": "items"}, {"file": "side.1.arrow", "name": "users"}]


@contextmanager
def chain_of(state: StateFolder, made: Tables, dtype: WeightDtype = "fp32", **options: Any) -> Iterator[VersionWriter]:
    with LeaseHolder(state) as holder:
        writer = VersionWriter(holder, "serving", made, projection="weights", dtype=dtype, **options)
        yield writer
        writer.close()
        assert writer.failures == []


def three_versions(folder: Path, dtype: WeightDtype) -> tuple[StateFolder, Tables]:
    """A snapshot and two deltas, with deletes between them, in `folder`; beside them a `resume` chain of the same."""
    state, made = StateFolder(folder), tables()
    with LeaseHolder(state) as holder:
        resume = VersionWriter(holder, "resume", made, keep=9)
        serving = VersionWriter(holder, "serving", made, projection="weights", dtype=dtype, keep=9)
        for cut in range(3):
            train(made, range(5 * cut, 5 * cut + 5))
            for writer in (resume, serving):
                writer.cut({"dense": np.arange(4.0)}, {})
            if cut < 2:
                made.delete("grows", torch.tensor([cut, cut + 20]))
        for writer in (resume, serving):
            writer.close()
            assert writer.failures == []
    return state, made


@pytest.mark.parametrize("dtype", ROUNDED)
def test_readers_see_float32_within_the_error_that_the_version_states(dtype: WeightDtype, tmp_path: Path) -> None:
    state, made = three_versions(tmp_path, dtype)
    for number in (1, 2, 3):
        full, less = (read_version(state, state.manifest(p, number), made.stored) for p in ("resume", "serving"))
        for name, content in less.tables.items():
            of, entry = full.tables[name], state.manifest("serving", number).tables[name]
            assert entry.dtype == dtype
            assert content.keys.tolist() == of.keys.tolist()
            assert content.columns["weight"].dtype == np.float32
            true = scaled(of.columns["weight"], of.scale).astype(np.float64)
            errors = np.abs(scaled(content.columns["weight"], content.scale) - true)
            assert entry.error is not None
            assert errors.max() == pytest.approx(entry.error.max_abs, rel=1e-3)
            assert np.sqrt(np.square(errors).mean()) == pytest.approx(entry.error.rms, rel=1e-3)
            assert 0.0 < entry.error.rms < entry.error.max_abs < 0.05
            assert all(content.cold[part].tobytes() == of.cold[part].tobytes() for part in content.cold)


@pytest.mark.parametrize("dtype", ROUNDED)
def test_a_compacted_chain_has_the_same_rounded_rows(dtype: WeightDtype, tmp_path: Path) -> None:
    state, made = three_versions(tmp_path, dtype)
    before = {table.config.name: weights_by_key(state, "serving-3", table.config.name) for table in made.stored}
    errors = [state.manifest("serving", n).tables["grows"].error for n in (1, 2, 3)]
    with LeaseHolder(state) as holder:
        version = compact(holder, "serving", keep=1).version
    assert before == {name: weights_by_key(state, version.name, name) for name in before}
    entry = version.tables["grows"]
    assert entry.dtype == dtype
    assert entry.error is not None
    assert entry.error.max_abs == max(e.max_abs for e in errors if e is not None)
    state.verify(version)


@pytest.mark.parametrize("dtype", ROUNDED)
def test_tools_look_into_rounded_versions(dtype: WeightDtype, tmp_path: Path) -> None:
    state, _ = three_versions(tmp_path, dtype)
    found = diff(state, "resume-3", state, "serving-3")
    for name, table in found["tables"].items():
        assert (table["only_a"], table["only_b"]) == (0, 0), name
        assert table["changed"] > 0
        assert max(change["l2"] for change in table["largest"]) < 0.2
    chain = find_version(state, "serving-3").chain
    ours = figures_of(state, chain, [], 3)
    theirs = figures_of(state, find_version(state, "resume-3").chain, [], 3)
    for less, full in zip(ours, theirs, strict=True):
        assert (less.rows, less.dim, less.not_finite) == (full.rows, full.dim, 0)
        error = state.manifest("serving", 3).tables[less.table].error
        assert error is not None
        assert (less.dtype, less.error) == (dtype, {"max_abs": error.max_abs, "rms": error.rms})
        assert (full.dtype, full.error) == ("fp32", None)
        assert (
            "weights",
            f"{dtype}: within {error.max_abs:.3g} of the true ones, {error.rms:.3g} root mean square",
        ) in (facts(less))
        assert less.bytes_by_part["weight"] < full.bytes_by_part["weight"]
        assert less.norm.quantiles["p50"] == pytest.approx(full.norm.quantiles["p50"], rel=0.05)


def test_a_dtype_is_one_of_versions_of_weights(tmp_path: Path) -> None:
    with LeaseHolder(StateFolder(tmp_path)) as holder:
        with pytest.raises(ConfigError, match="argument dtype: is int8, which only versions of weights have"):
            VersionWriter(holder, "resume", tables(), dtype="int8")
        with pytest.raises(ConfigError, match="argument dtype: must be one of fp32, bf16, fp16, int8"):
            VersionWriter(holder, "serving", tables(), projection="weights", dtype="int4")  # type: ignore[arg-type]


def test_after_versions_of_another_dtype_comes_a_snapshot(tmp_path: Path) -> None:
    state, made = StateFolder(tmp_path), tables()
    for dtype in ("fp32", "bf16"):
        with chain_of(state, made, dtype) as writer:  # type: ignore[arg-type]
            newest = state.latest("serving")
            if newest is not None:
                writer.go_on_from(state.chain("serving", newest.sequence))
            for step in range(2):
                train(made, range(step, step + 1))
                writer.cut({}, {})
    assert [state.manifest("serving", n).parent for n in state.sequences("serving")] == [None, 3]


@pytest.mark.parametrize("where", ["row", "cold row"])
def test_weights_that_are_not_finite_are_not_published_and_the_next_version_has_the_rest(
    where: str, tmp_path: Path
) -> None:
    state, made = StateFolder(tmp_path), tables()
    with LeaseHolder(state) as holder:
        writer = VersionWriter(holder, "serving", made, projection="weights")
        train(made, range(5))
        writer.cut({}, {})
        writer.wait()
        key = int(made.keys("grows")[0])  # type: ignore[index]
        content = made.table_content("grows")
        if where == "row":
            content.columns["weight"][content.keys == key] = np.nan
        else:
            content.cold["weight"][:] = np.nan
        sound = made.table_content("grows")
        made.take_over("grows", content)
        writer.cut({}, {})
        with pytest.raises(StateError, match=f"key {key} has a weight that" if where == "row" else "cold row is not"):
            writer.wait()
        made.take_over("grows", sound)
        train(made, range(5, 7))
        writer.cut({}, {})
        writer.close()
        assert writer.failures == []
    assert state.sequences("serving") == [1, 2]
    assert state.manifest("serving", 2).parent == 1
    weights = weights_by_key(state, "serving-2", "grows")
    assert np.isfinite(np.array(list(weights.values()))).all()
    assert len(weights) == made.num_rows("grows")


class Rows:
    """What a server holds that follows a chain: rows by key, at the newest scale."""

    def __init__(self, state: StateFolder, made: Tables) -> None:
        self.read: list[str] = []
        self.tables: dict[str, dict[int, Any]] = {}
        self.scales: dict[str, float] = {}
        self.follower = Follower(state, "serving", read=lambda s, m: read_version(s, m, made.stored))

    def take(self) -> None:
        for version in self.follower.poll():
            self.read.append(f"{version.manifest.name}{' whole' if version.is_snapshot else ''}")
            for name, content in version.content.tables.items():
                rows = self.tables.setdefault(name, {})
                if version.is_snapshot:
                    rows.clear()
                for key in content.tombstones.tolist():
                    rows.pop(key, None)
                rows.update(zip(content.keys.tolist(), content.columns["weight"], strict=True))
                self.scales[name] = content.scale

    def need_same(self, made: Tables) -> None:
        for name, content in made.content().items():
            expected = dict(zip(content.keys.tolist(), content.columns["weight"], strict=True))
            assert self.tables[name].keys() == expected.keys()
            assert self.scales[name] == content.scale
            assert all(self.tables[name][key].tobytes() == row.tobytes() for key, row in expected.items())


@pytest.mark.parametrize("longest", [0, 1, 3])
def test_a_follower_that_keeps_up_reads_one_snapshot_in_its_life(longest: int, tmp_path: Path) -> None:
    state, made = StateFolder(tmp_path), tables()
    keen, late = Rows(state, made), Rows(state, made)
    train(made, range(10))
    with chain_of(state, made, longest=longest, keep=6) as writer:
        for cut in range(9):
            made.set("fixed", torch.tensor([cut]), torch.full((1, 4), float(cut)))
            made.delete("counts", made.keys("counts")[:1])  # type: ignore[index]
            writer.cut({}, {})
            writer.wait()
            keen.take()
            keen.need_same(made)
            if cut % 2 == 0:  # it is behind by two versions, and perhaps by a snapshot between them
                late.take()
                late.need_same(made)
    assert [name for name in keen.read if name.endswith("whole")] == ["serving-1 whole"]
    assert [name for name in late.read if name.endswith("whole")] == ["serving-1 whole"]
    versions = [state.manifest("serving", n) for n in state.sequences("serving")]
    snapshots = [version for version in versions if version.parent is None]
    assert snapshots
    by_number = {version.sequence: version for version in versions}
    for snapshot in snapshots:
        if snapshot.sequence - 1 in by_number:
            assert snapshot.same_as == by_number[snapshot.sequence - 1].folder
    new = Rows(state, made)
    new.take()
    assert new.read[0] == f"{snapshots[-1].name} whole"  # not what it is the same as
    new.need_same(made)


def test_a_follower_whose_versions_are_gone_begins_with_the_snapshot(tmp_path: Path) -> None:
    state, made = StateFolder(tmp_path), tables()
    rows = Rows(state, made)
    train(made, range(10))
    with chain_of(state, made, longest=2, keep=1) as writer:
        for cut in range(7):
            train(made, range(cut, cut + 1))
            writer.cut({}, {})
            writer.wait()
            if cut == 0:
                rows.take()
    rows.take()
    rows.need_same(made)
    assert sum(name.endswith("whole") for name in rows.read) == 2


def test_a_failed_snapshot_leaves_the_chain_and_the_next_delta_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, made = StateFolder(tmp_path), tables()
    with LeaseHolder(state) as holder:
        writer = VersionWriter(holder, "serving", made, projection="weights", longest=1, keep=9)

        def fails(*_: Any) -> Manifest:
            raise StateError("the disk is full")

        for cut in range(4):
            train(made, range(cut, cut + 1))
            with monkeypatch.context() as patch:
                if cut == 1:
                    patch.setattr("embtables.state.write.version_writer.write_merged_snapshot", fails)
                writer.cut({}, {})
                writer.wait()
        writer.close()
        assert [str(error) for error in writer.failures] == ["the disk is full"]
    parents = [state.manifest("serving", n).parent for n in state.sequences("serving")]
    assert parents == [None, 1, 2, None, 4, None]


ITEMS = pa.table({"id": ["a", "b", None], "price": [1.5, None, 2.5], "tags": [["x"], [], None]})
USERS = pa.table({"id": pa.array([1, 2]), "kind": pa.array(["new", "old"]).dictionary_encode()})


def files_in(version: Manifest) -> list[str]:
    return [name for name in version.files if name.startswith("side.")]


def test_side_tables_are_in_snapshots_and_in_deltas_that_change_them(tmp_path: Path) -> None:
    state, made = StateFolder(tmp_path), tables()
    content = {"side_tables": SIDES}
    changed = ITEMS.slice(0, 2)
    with chain_of(state, made, keep=99, longest=4) as writer:
        for cut, items in enumerate((ITEMS, ITEMS, changed, changed)):
            train(made, range(cut, cut + 1))
            writer.cut({}, content, side_tables={"side.0.arrow": SideFile(items), "side.1.arrow": SideFile(USERS)})
    with chain_of(state, made, keep=99, longest=4) as writer:
        writer.go_on_from(state.chain("serving", 4))
        for items in (changed, ITEMS):  # the second is followed by a snapshot
            train(made, range(9, 10))
            writer.cut({}, content, side_tables={"side.0.arrow": SideFile(items), "side.1.arrow": SideFile(USERS)})
    versions = [state.manifest("serving", n) for n in state.sequences("serving")]
    both, first = ["side.0.arrow", "side.1.arrow"], ["side.0.arrow"]
    assert [files_in(v) for v in versions] == [both, [], first, [], [], both, first]
    assert [v.parent for v in versions][-2:] == [None, 6]
    with LeaseHolder(state) as holder:
        compacted = compact(holder, "serving", keep=9).version
    assert files_in(compacted) == both
    assert parsed(state, compacted, "side.0.arrow").equals(ITEMS)
    assert parsed(state, compacted, "side.1.arrow").equals(plain(USERS))


def plain(table: pa.Table) -> pa.Table:
    return pa.table({name: pa.array(table[name].to_pylist()) for name in table.column_names})


def parsed(state: StateFolder, version: Manifest, name: str) -> pa.Table:
    reader = RangeReader(state, version, name)
    return parse_side_file(reader.read_all(), reader.path)


def test_equal_side_tables_have_equal_files() -> None:
    pieces = pa.concat_tables([ITEMS.slice(0, 1), ITEMS.slice(1)])
    assert SideFile(pieces).xxh3 == SideFile(ITEMS).xxh3
    assert SideFile(ITEMS.slice(1)).xxh3 != SideFile(ITEMS).xxh3
    assert SideFile(ITEMS.replace_schema_metadata({"pandas": "x"})).xxh3 == SideFile(ITEMS).xxh3


def test_a_listed_version_says_its_dtype_and_error(tmp_path: Path) -> None:
    from embtables.pipelines.state_tools.commands import listing

    state, _ = three_versions(tmp_path, "int8")
    found = {version["version"]: version for version in listing(state)}
    assert found["resume-3"]["dtype"] == "fp32"
    assert found["resume-3"]["errors"] == {}
    assert found["serving-3"]["dtype"] == "int8"
    error = state.manifest("serving", 3).tables["counts"].error
    assert error is not None
    assert found["serving-3"]["errors"]["counts"] == {"max_abs": error.max_abs, "rms": error.rms}
    json.dumps(found)

"""Versions of weights alone: what a server reads of them, what tools do with them, and who cannot go on from them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from embtables.errors import StateError
from embtables.state.folder.version_folder import LeaseHolder, StateFolder
from embtables.state.read.load import load as load_version
from embtables.state.read.version_reader import read_version
from embtables.state.tools.compact import compact
from embtables.state.tools.figures import figures_of
from embtables.state.write.version_writer import VersionWriter
from tests.state.versions_for_tests import tables, train

Call = Callable[..., tuple[int, Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both chains of the same tables: a snapshot and two deltas each."""
    path, made = tmp_path_factory.mktemp("state"), tables()
    with LeaseHolder(StateFolder(path)) as holder:
        resume = VersionWriter(holder, "resume", made, keep=9)
        serving = VersionWriter(holder, "serving", made, projection="weights", keep=9)
        for cut in range(3):
            train(made, range(5 * cut, 5 * cut + 5))
            resume.cut({"dense": np.arange(4.0) + cut}, {})
            serving.cut({"dense": np.arange(4.0) + cut}, {})
            made.delete("grows", torch.tensor([cut, cut + 20]))
        for writer in (resume, serving):
            writer.close()
            assert writer.failures == []
    return path


def test_a_version_of_weights_is_a_full_one_less_what_training_alone_needs(folder: Path) -> None:
    state, stored = StateFolder(folder), tables().stored
    for number in (1, 2, 3):
        full, less = (state.manifest("resume", number), state.manifest("serving", number))
        assert (full.projection, less.projection, less.parent) == ("full", "weights", full.parent)
        whole, part = (read_version(state, m, stored) for m in (full, less))
        assert part.tensors["dense"].tolist() == (np.arange(4.0) + number - 1).tolist()
        for name, content in part.tables.items():
            of = whole.tables[name]
            assert content.columns.keys() == {"weight"}
            assert content.keys.tolist() == of.keys.tolist()
            assert content.columns["weight"].tobytes() == of.columns["weight"].tobytes()
            assert content.seen.tolist() == of.seen.tolist()
            assert sorted(content.tombstones) == sorted(of.tombstones)
            assert content.cold.keys() == of.cold.keys() & {"weight"}
            assert all(content.cold[part].tobytes() == of.cold[part].tobytes() for part in content.cold)
            assert (content.now, content.steps) == (of.now, of.steps)
            assert not len(content.counts) and not len(content.waiting) and not len(content.sketch)
        assert any(len(content.waiting) + len(content.sketch) for content in whole.tables.values())
        sizes = [sum(file.bytes for file in m.files.values()) for m in (full, less)]
        assert sizes[1] < 0.8 * sizes[0]


def test_training_does_not_go_on_from_weights_alone(folder: Path) -> None:
    state, made = StateFolder(folder), tables()
    train(made, range(2))
    before = made.weight("grows")
    with pytest.raises(StateError, match="version serving-3: holds weights alone, for servers: training needs"):
        load_version(state, state.chain("serving", 3), made)
    assert made.weight("grows").equal(before)
    content = read_version(state, state.manifest("serving", 1), made.stored).tables
    with pytest.raises(StateError, match="rows to take over have weight, the table's have exp_avg, exp_avg_sq, weight"):
        made.take_over("grows", content["grows"])


def test_after_a_version_of_another_projection_comes_a_snapshot(tmp_path: Path) -> None:
    state, made = StateFolder(tmp_path), tables()
    with LeaseHolder(state) as holder:
        for projection in ("full", "weights"):
            writer = VersionWriter(holder, "serving", made, projection=projection)  # type: ignore[arg-type]
            newest = state.latest("serving")
            if newest is not None:
                writer.go_on_from([newest])
            for _ in range(2):
                train(made, range(2))
                writer.cut({}, {})
            writer.close()
    assert [state.manifest("serving", n).parent for n in state.sequences("serving")] == [None, 3]


def test_the_commands_take_versions_of_weights(folder: Path, tmp_path: Path, call: Call) -> None:
    status, listed = call("state", "ls", folder, "--json")
    assert status == 0
    assert {v["version"]: v["projection"] for v in listed["versions"]} == {
        f"{purpose}-{n}": projection
        for purpose, projection in (("resume", "full"), ("serving", "weights"))
        for n in (1, 2, 3)
    }
    assert call("state", "verify", folder, "--version", "serving-3", "--json")[0] == 0
    output = tmp_path / "rows.parquet"
    status, exported = call("state", "export", folder, "grows", output, "--version", "serving-3", "--json")
    assert status == 0
    assert pq.read_table(output).column_names == ["key", "weight", "seen"]
    status, report = call("state", "diff", folder, "resume-3", "serving-3", "--json")
    assert status == 0
    found = report["tables"]["grows"]
    assert (found["only_a"], found["only_b"], found["changed"], found["same"]) == (0, 0, 0, exported["rows"])
    assert found["layout"] == ["optimizer state: exp_avg by weight, exp_avg_sq by weight in A, none in B"]


def test_figures_of_weights_say_what_the_files_say(folder: Path) -> None:
    state = StateFolder(folder)
    full, less = (
        {f.table: f for f in figures_of(state, state.chain(purpose, 3), [], 3)} for purpose in ("resume", "serving")
    )
    for name, found in less.items():
        assert (found.rows, found.norm, found.age) == (full[name].rows, full[name].norm, full[name].age)
        assert (found.optimizer, found.count, found.never_updated, found.top) == (None, None, None, ())
        assert found.bytes_by_part.keys() <= {"keys", "weight", "bookkeeping", "cold"}


def test_a_compacted_chain_of_weights_is_one_of_weights(folder: Path) -> None:
    state, stored = StateFolder(folder), tables().stored
    before = state.latest("serving")
    assert before is not None
    rows = {key: row for n in (1, 2, 3) for key, row in _rows(state, n).items()}
    gone = {
        k for n in (2, 3) for k in read_version(state, state.manifest("serving", n), stored).tables["grows"].tombstones
    }
    with LeaseHolder(state) as holder:
        compacted = compact(holder, "serving", keep=9).version
    assert (compacted.projection, compacted.parent, compacted.same_as) == ("weights", None, before.folder)
    content = read_version(state, compacted, stored).tables["grows"]
    assert set(content.keys.tolist()) == rows.keys() - (gone - _rows(state, 3).keys())
    for key, row in zip(content.keys.tolist(), content.columns["weight"], strict=True):
        assert row.tobytes() == rows[key]


def _rows(state: StateFolder, number: int) -> dict[int, bytes]:
    content = read_version(state, state.manifest("serving", number), tables().stored).tables["grows"]
    return {k: w.tobytes() for k, w in zip(content.keys.tolist(), content.columns["weight"], strict=True)}

"""Side tables of published versions, from a run's data to a server; what did not change is not read again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embtables.errors import StateError
from embtables.models.version_content import scoring_content
from embtables.pipelines.config import RunConfig
from embtables.pipelines.run_dir import RunDir
from embtables.pipelines.state_tools.publish import publish
from embtables.pipelines.training.train import resume, train
from embtables.schema import validate
from embtables.serving.scoring.side_tables import SideTables
from embtables.serving.versions.load import load, read_delta
from embtables.serving.versions.side_tables.load_side_tables import load_side_tables
from embtables.state.folder.version_folder import StateFolder
from embtables.state.format.manifest import Manifest


def write_items(log: Path, prices: list[float]) -> None:
    pq.write_table(pa.table({"item": ["pen", "cup"], "price": prices, "colour": ["red", "blue"]}), log / "items.pq")


def shop(folder: Path, **changes: Any) -> RunConfig:
    log = folder / "log"
    log.mkdir()
    rng = np.random.default_rng(0)
    items, users = rng.choice(["pen", "cup"], 400), rng.integers(0, 3, 400)
    pq.write_table(pa.table({"item": items, "user": users, "label": rng.integers(0, 2, 400)}), log / "log.parquet")
    pq.write_table(pa.table({"user": [0, 1, 2], "town": ["Bern", None, "Rome"]}), log / "users.pq")
    write_items(log, [1.0, 2.0])
    table = {"dim": 4, "num_rows": 100, "optimizer": {"kind": "sgd", "learning_rate": 0.1}}
    content = {
        "name": "shop",
        "tables": [{"name": "t", **table}],
        "features": [{"name": name, "table": "t"} for name in ("item", "user", "town", "colour")],
        "labels": [{"column": "label"}],
        "dense": [{"column": "price"}],
        "data": {
            "path": str(log),
            "join": [{"path": "items.pq", "key": "item"}, {"path": "users.pq", "key": "user", "on_missing": "null"}],
        },
        "model": {"kind": "lr"},
        "train": {"runs_dir": str(folder / "runs"), "batch_size": 100, "threads": 1},
        **changes,
    }
    return validate(RunConfig, content)


def served(folder: Path, number: int) -> tuple[StateFolder, list[Manifest]]:
    state = StateFolder(folder)
    return state, state.chain("serving", number)


def test_a_trained_run_serves_what_it_joined(tmp_path: Path) -> None:
    report = train(shop(tmp_path, publish={"every_steps": 2}), shown=False)
    state = StateFolder(Path(report["run_dir"]) / "checkpoints")
    newest = state.latest("serving")
    assert newest is not None
    chain = state.chain("serving", newest.sequence)
    assert len(chain) > 1
    assert [name for name in chain[-1].files if name.startswith("side.")] == []  # they are those of the snapshot
    live = load(state, chain).served
    joined = SideTables(live.side_tables.values()).joined({"item": pa.array(["cup"]), "user": pa.array([2])}, 1)
    assert {name: column.to_pylist() for name, column in joined.columns.items()} == {
        "price": [2.0],
        "colour": ["blue"],
        "town": ["Rome"],
    }
    assert live.content.candidate_key is None


def test_a_delta_brings_the_side_table_that_changed(tmp_path: Path) -> None:
    first = train(shop(tmp_path, publish={"every_steps": 1}), shown=False)
    run = RunDir.open(Path(first["run_dir"]))
    state = StateFolder(run.checkpoints)
    then = state.latest("serving")
    assert then is not None
    loaded = load(state, state.chain("serving", then.sequence))
    users = loaded.served.side_tables["users.pq"]
    write_items(tmp_path / "log", [1.0, 5.0])
    resume(run, ("train.epochs=2",), shown=False)
    now = state.latest("serving")
    assert now is not None
    new = [version for version in state.chain("serving", now.sequence) if version.sequence > then.sequence]
    assert new[0].parent is not None  # a delta
    for delta in new:
        loaded.apply(read_delta(state, loaded, delta))
    found = loaded.served.side_tables
    assert found["items.pq"].table.column("price").to_pylist() == [1.0, 5.0]
    assert found["users.pq"] is users


def test_a_table_that_changed_is_loaded_and_the_others_stay(tmp_path: Path) -> None:
    run = Path(train(shop(tmp_path), shown=False)["run_dir"])
    to = tmp_path / "published"
    publish(run, to, "last", "fp32", keep=9, with_side_tables=True)
    write_items(tmp_path / "log", [1.0, 5.0])
    publish(run, to, "last", "fp32", keep=9, with_side_tables=True)
    state = StateFolder(to)
    first, second = (state.chain("serving", number)[-1] for number in (1, 2))
    before = load_side_tables(state, [first], scoring_content(first))
    after = load_side_tables(state, [second], scoring_content(second), before)
    assert list(after) == ["items.pq", "users.pq"]
    assert after["users.pq"] is before["users.pq"]
    cup = {"item": pa.array(["cup"])}
    assert SideTables(before.values()).joined(cup, 1).columns["price"].to_pylist() == [2.0]
    assert SideTables(after.values()).joined(cup, 1).columns["price"].to_pylist() == [5.0]
    # A delta lists the files that changed, and may list none.
    changed = {name: file for name, file in second.files.items() if name == "side.0.arrow"}
    for files, newer in ((changed, True), ({}, False)):
        delta = second.model_copy(update={"files": files})
        found = load_side_tables(state, [delta], scoring_content(second), before)
        assert found["users.pq"] is before["users.pq"]
        assert (found["items.pq"].table.column("price")[1].as_py() == 5.0) is newer
    # What a version says about a table may change where the table does not.
    content = scoring_content(second)
    items = content.side_tables[0].model_copy(update={"missing": "null"})
    found = load_side_tables(state, [second], content.model_copy(update={"side_tables": (items,)}), after)
    assert found["items.pq"].of.missing == "null"


@pytest.mark.parametrize(("option", "says"), [("name", "name"), ("file", "file"), ("columns", "column")])
def test_a_version_that_names_something_twice_is_refused(tmp_path: Path, option: str, says: str) -> None:
    run = Path(train(shop(tmp_path), shown=False)["run_dir"])
    publish(run, tmp_path / "published", "last", "fp32", keep=9, with_side_tables=True)
    _, (version,) = served(tmp_path / "published", 1)
    first, second = version.content["side_tables"]
    content = {**version.content, "side_tables": [first, {**second, option: first[option]}]}
    with pytest.raises(StateError, match=f"side_tables: two have the {says} '"):
        scoring_content(version.model_copy(update={"content": content}))


def test_a_version_without_its_file_or_with_a_damaged_one_is_refused(tmp_path: Path) -> None:
    run = Path(train(shop(tmp_path), shown=False)["run_dir"])
    publish(run, tmp_path / "published", "last", "fp32", keep=9, with_side_tables=True)
    state, (version,) = served(tmp_path / "published", 1)
    content = scoring_content(version)
    without = {name: file for name, file in version.files.items() if name != "side.1.arrow"}
    with pytest.raises(StateError, match=r"has no file side\.1\.arrow"):
        load_side_tables(state, [version.model_copy(update={"files": without})], content)
    (file,) = (tmp_path / "published").rglob("*side.0.arrow*")
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.chmod(0o600)
    file.write_bytes(raw)
    with pytest.raises(StateError) as damaged:
        load_side_tables(state, [version], content)
    assert str(damaged.value) == f"file {file}: is damaged: its checksum is not the one recorded"
    # The other one is whole.
    (users,) = (table for table in content.side_tables if table.file == "side.1.arrow")
    whole = load_side_tables(state, [version], content.model_copy(update={"side_tables": (users,)}))
    assert whole["users.pq"].num_rows == 3

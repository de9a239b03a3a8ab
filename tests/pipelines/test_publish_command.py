"""`embtables state publish`: a version of a run as the next one for servers, in a folder of its own."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embtables.models.scorer import Scorer
from embtables.models.served import served_tables
from embtables.models.side_tables import read_side_table
from embtables.models.version_content import scoring_content
from embtables.pipelines.config import RunConfig
from embtables.pipelines.training.train import train
from embtables.state.folder.version_folder import StateFolder
from embtables.state.format.side_file import side_files_of
from embtables.state.read.follower import Follower
from embtables.state.read.serve import load_served
from tests.state.versions_for_tests import weights_by_key

Call = Callable[..., tuple[int, Any]]


@pytest.fixture
def publish(call: Call) -> Call:
    """`embtables state publish` with these arguments."""
    return lambda *arguments: call("state", "publish", *arguments)


@pytest.fixture
def items(tmp_path: Path) -> Path:
    path = tmp_path / "items.parquet"
    pq.write_table(pa.table({"item": [f"item-{i}" for i in range(30)], "weight": [i / 30 for i in range(30)]}), path)
    return path


@pytest.fixture
def run(make_config: Callable[..., RunConfig], items: Path) -> Path:
    """A run with a collisionless table of which all rows decay, and a side table."""
    decay = {"kind": "adam", "learning_rate": 0.1, "weight_decay": {"kind": "dense", "rate": 0.3}}
    tables = [
        {"kind": "collisionless", "name": "user", "dim": 8, "optimizer": decay, "max_rows": 30},
        {"name": "item", "num_rows": 64, "dim": 8, "optimizer": {"kind": "adagrad", "learning_rate": 0.1}},
    ]
    join = {"path": str(items), "key": "item", "columns": ["weight"]}
    dense = [{"column": "price", "transforms": ["log1p", "standardise"]}, {"column": "weight"}]
    changes = {"tables": tables, "data.join": [join], "dense": dense, "train.max_steps": 14}
    return Path(train(make_config(**changes), shown=False)["run_dir"])


def scorer_of(folder: Path) -> Scorer:
    state = StateFolder(folder)
    chain = state.chain("serving", state.sequences("serving")[-1])
    tables = served_tables(state, chain)
    loaded = load_served(state, chain, tables)
    return Scorer.of_content(scoring_content(chain[-1]), tables, loaded.tensors, chain[-1].name)


def test_a_version_is_published_with_its_rows_and_side_tables(run: Path, publish: Call, tmp_path: Path) -> None:
    folder = tmp_path / "served"
    status, report = publish(run, "--to", folder, "--version", "last", "--json")
    assert status == 0
    state, own = StateFolder(folder), StateFolder(run / "checkpoints")
    newest = own.latest("resume")
    assert newest is not None
    assert (report["version"], report["from"], report["dtype"]) == ("serving-1", newest.name, "fp32")
    version = state.manifest("serving", 1)
    assert (version.projection, version.parent) == ("weights", None)
    assert "state" not in version.content
    assert version.content["published"] == {"run": run.name, "step": 14, "version": newest.name}
    assert newest.tables["user"].scale < 1.0 == version.tables["user"].scale
    for table in ("user", "item"):
        assert weights_by_key(state, "serving-1", table) == weights_by_key(own, newest.name, table)
        assert report["rows"][table] == len(weights_by_key(own, newest.name, table))
    content = scoring_content(version)
    (of,) = content.side_tables
    assert content.candidate_key == "item"
    assert side_files_of([version]) == {of.file: version}
    assert read_side_table(state, version, of).num_rows == 30
    state.verify(version)


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16", "int8"])
def test_what_is_published_scores_as_the_run_does(dtype: str, run: Path, publish: Call, tmp_path: Path) -> None:
    status, report = publish(run, "--to", tmp_path / "served", "--dtype", dtype, "--json")
    assert status == 0
    rows = pq.read_table(tmp_path / "log" / "part-0.parquet").slice(0, 200)
    rows = rows.append_column("weight", pa.array(np.linspace(0, 1, 200)))
    ours = scorer_of(tmp_path / "served").score(rows)
    theirs = Scorer.from_version(run, "best").score(rows)
    assert float((ours - theirs).abs().max()) <= (1e-6 if dtype == "fp32" else 0.02)
    assert report["errors"].keys() == (set() if dtype == "fp32" else {"user", "item"})
    assert all(0 < error["rms"] < error["max_abs"] < 0.02 for error in report["errors"].values())


def test_publishing_again_is_the_next_version_for_followers(run: Path, publish: Call, tmp_path: Path) -> None:
    folder = tmp_path / "served"
    for number in (1, 2, 3):
        status, report = publish(run, "--to", folder, "--keep", 2, "--json")
        assert (status, report["version"]) == (0, f"serving-{number}")
    assert StateFolder(folder).sequences("serving") == [2, 3]
    follower = Follower(StateFolder(folder), "serving")
    assert [version.manifest.name for version in follower.poll()] == ["serving-3"]
    publish(run, "--to", folder)
    assert [version.manifest.name for version in follower.poll()] == ["serving-4"]


def test_a_published_version_is_published_further(run: Path, publish: Call, tmp_path: Path) -> None:
    publish(run, "--to", tmp_path / "a", "--dtype", "int8")
    status, report = publish(tmp_path / "a", "--version", "serving-1", "--to", tmp_path / "b", "--json")
    assert (status, report["from"], report["side_tables"]) == (0, "serving-1", [str(tmp_path / "items.parquet")])
    first, second = StateFolder(tmp_path / "a"), StateFolder(tmp_path / "b")
    assert weights_by_key(first, "serving-1", "user") == weights_by_key(second, "serving-1", "user")
    assert second.manifest("serving", 1).content["published"]["run"] == run.name


def test_a_run_itself_has_a_chain_to_publish_to(run: Path, publish: Call) -> None:
    status, report = publish(run, "--to", run, "--json")
    assert (status, report["version"]) == (0, "serving-1")
    assert StateFolder(run / "checkpoints").sequences("serving") == [1]
    assert not (run / "manifests").exists()


def test_a_folder_of_another_schema_is_refused(
    run: Path, publish: Call, tmp_path: Path, make_config: Callable[..., RunConfig]
) -> None:
    folder = tmp_path / "served"
    assert publish(run, "--to", folder)[0] == 0
    other = train(make_config(**{"train.max_steps": 3}), shown=False)["run_dir"]
    status, text = publish(other, "--to", folder)
    assert status == 1
    assert "serving-1: has versions of another schema, whose servers could not read this one: give another" in text
    assert StateFolder(folder).sequences("serving") == [1]


def test_without_its_data_a_run_publishes_its_own_side_tables_or_none(
    run: Path, items: Path, publish: Call, tmp_path: Path
) -> None:
    items.unlink()
    status, text = publish(run, "--to", tmp_path / "served")
    assert status == 1
    assert "the side tables cannot be made" in text
    assert "items.parquet" in text
    assert "--without-side-tables publishes without them" in text
    assert not (tmp_path / "served").exists()
    status, report = publish(run, "--to", tmp_path / "served", "--without-side-tables", "--json")
    assert (status, report["side_tables"]) == (0, [])
    assert scoring_content(StateFolder(tmp_path / "served").manifest("serving", 1)).side_tables == ()


def test_without_its_data_a_run_has_what_it_published_while_it_trained(
    make_config: Callable[..., RunConfig], items: Path, publish: Call, tmp_path: Path
) -> None:
    join = {"path": str(items), "key": "item", "columns": ["weight"]}
    changes = {
        "data.join": [join],
        "dense": [{"column": "weight"}],
        "train.max_steps": 6,
        "publish": {"every_steps": 2},
    }
    run = Path(train(make_config(**changes), shown=False)["run_dir"])
    items.unlink()
    status, report = publish(run, "--to", tmp_path / "served", "--json")
    assert (status, report["side_tables"]) == (0, [str(items)])
    state = StateFolder(tmp_path / "served")
    version = state.manifest("serving", 1)
    (of,) = scoring_content(version).side_tables
    assert read_side_table(state, version, of)["weight"].to_pylist() == [i / 30 for i in range(30)]


def test_what_cannot_be_published_is_said_in_one_sentence(run: Path, publish: Call, tmp_path: Path) -> None:
    cases = {
        (tmp_path / "nowhere", "--to", tmp_path / "x"): "has no versions: there is no manifests/ in it",
        (run, "--to", tmp_path / "x", "--version", "resume-99"): "there is no version 'resume-99'",
        (run, "--to", tmp_path / "x", "--version", "newest"): "a version is named best, last or like resume-12",
        (run, "--to", tmp_path / "x", "--dtype", "int4"): "must be one of fp32, bf16, fp16, int8, received 'int4'",
        (run, "--to", tmp_path / "items.parquet"): "cannot be written: Not a directory",
        (run,): "Missing option '--to'",
    }
    for arguments, text in cases.items():
        status, said = publish(*arguments)
        assert status in (1, 2)
        assert text in said.replace("\n", " ")
        assert "Traceback" not in said
    assert not (tmp_path / "x").exists()


def test_a_damaged_run_is_refused_and_nothing_is_left(run: Path, publish: Call, tmp_path: Path) -> None:
    for rows in run.glob("checkpoints/versions/*/user.rows.0.arrow"):
        raw = bytearray(rows.read_bytes())
        raw[-3_000] ^= 1
        rows.write_bytes(raw)
    status, text = publish(run, "--to", tmp_path / "served")
    assert status == 1
    assert "user.rows.0.arrow" in text
    assert "is damaged" in text
    assert StateFolder(tmp_path / "served").sequences("serving") == []
    assert list((tmp_path / "served" / "versions").glob("*")) == []


def test_a_run_that_was_moved_and_a_folder_of_versions(run: Path, publish: Call, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.move(run, moved)
    assert publish(moved / "checkpoints", "--to", tmp_path / "a")[0] == 0
    shutil.copytree(moved / "checkpoints", tmp_path / "versions")
    status, text = publish(tmp_path / "versions", "--to", tmp_path / "b")
    assert status == 1
    assert "has no configuration to make side tables from" in text
    assert "--without-side-tables" in text
    assert publish(tmp_path / "versions", "--to", tmp_path / "b", "--without-side-tables")[0] == 0

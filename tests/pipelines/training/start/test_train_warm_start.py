"""`warm_start` in a run: rows are there before the first step, and only in a new run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch

from embtables.errors import ConfigError, DataError
from embtables.ids.strings import hash_strings
from embtables.pipelines.config import RunConfig, load_config
from embtables.pipelines.run_dir import RunDir
from embtables.pipelines.training import checkpoint
from embtables.pipelines.training.learner import Learner
from embtables.pipelines.training.train import resume, train
from embtables.schema import to_yaml
from embtables.state.read.find import find

Make = Callable[..., RunConfig]
FROZEN = {"name": "item", "dim": 8, "trainable": False, "optimizer": {"kind": "sgd", "learning_rate": 0.1}}
USER = {"name": "user", "num_rows": 64, "dim": 8, "optimizer": {"kind": "sgd", "learning_rate": 0.1}}


def learner_of(report: dict[str, Any]) -> Learner:
    run = RunDir.open(Path(report["run_dir"]))
    learner = Learner(run.config())
    checkpoint.load(run.checkpoints, find(run.checkpoints, "last"), learner)
    return learner


@pytest.fixture
def items(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """A file of thirty items by their names, and their vectors."""
    rows = np.random.default_rng(0).standard_normal((30, 8)).astype(np.float32)
    names = [f"item-{n}" for n in range(30)]
    pq.write_table(pa.table({"item_id": names, "embedding": list(rows)}), tmp_path / "items.parquet", row_group_size=9)
    return tmp_path / "items.parquet", rows


def section(file: Path, **changes: Any) -> dict[str, Any]:
    return {"path": str(file), "table": "item", "id": "item_id", "vector": "embedding", "feature": "item", **changes}


def test_a_run_begins_with_the_vectors_and_is_resumed_without_them(
    make_config: Make, items: tuple[Path, np.ndarray]
) -> None:
    path, rows = items
    config = make_config(tables=[USER, FROZEN], warm_start=[section(path)], **{"train.epochs": 1})
    report = train(config, shown=False)
    expected = {"table": "item", "rows": 30, "duplicates": 0}
    assert report["warm_start"] == [{"path": str(path), "warmed": [expected]}]
    assert report["tables"]["item"]["rows"] == 30
    path.unlink()  # not wanted again
    report = resume(RunDir.open(Path(report["run_dir"])), ("train.epochs=2",), shown=False)
    assert report["warm_start"][0]["warmed"] == [expected]
    ids = torch.from_numpy(hash_strings(pa.array([f"item-{n}" for n in range(30)])))
    assert np.array_equal(learner_of(report).tables.get("item", ids, feature="item").numpy(), rows)


def test_rows_that_learn_start_from_the_vectors(make_config: Make, items: tuple[Path, np.ndarray]) -> None:
    path, rows = items
    changes = {"train.epochs": 1, "train.max_steps": 1, "train.batch_size": 7, "tables.1.num_rows": 4096}
    config = make_config(warm_start=[section(path)], **changes)
    found = learner_of(train(config, shown=False)).tables
    ids = torch.from_numpy(hash_strings(pa.array([f"item-{n}" for n in range(30)])))
    same = (found.get("item", ids, feature="item").numpy() == rows).all(axis=1)
    assert 30 - 7 <= same.sum() < 30  # seven rows of the log have learned


def test_a_torchrec_state_dict_by_the_command_line(
    make_config: Make, tmp_path: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    weight = torch.randn(64, 8)
    state = {"model.ebc.embedding_bags.user.weight": weight, "model.ebc.embedding_bags.shop.weight": torch.ones(2, 2)}
    safetensors.torch.save_file(state, tmp_path / "model.safetensors")
    # Paths are relative to the configuration's folder.
    changes = {"tables.0.trainable": False, "train.epochs": 1}
    config = make_config(warm_start=[{"path": "model.safetensors"}], **changes)
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    status, out, err = command("train", tmp_path / "config.yaml", "--json")
    assert status == 0
    report = json.loads(out.splitlines()[-1])
    assert report["warm_start"][0]["not_here"] == ["shop"]
    assert report["warm_start"][0]["not_there"] == ["item"]
    assert torch.equal(learner_of(report).tables.weight("user"), weight)
    assert f"table user: 64 rows set from {tmp_path / 'model.safetensors'}" in err
    assert "there are no such tables here: shop" in err


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"path": "model.pt"}, "is a pickle by its name, and pickles are not read; if you trust it, convert it once"),
        ({"vector": None}, "'vector' is missing; a parquet file needs table, id and vector"),
        ({"path": "m.safetensors"}, "'table' does not go with a .safetensors file"),
        ({"table": "shop"}, "there is no table 'shop'; there are: user, item, linear.user, linear.item"),
        ({"vectors": "x"}, "unknown key 'vectors'; did you mean 'vector'?"),
    ],
)
def test_a_wrong_section_is_refused_before_anything_runs(make_config: Make, changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError) as raised:
        make_config(warm_start=[section(Path("items.parquet"), **changes)])
    assert text in str(raised.value)


def test_wrong_vectors_leave_no_run_behind(make_config: Make, items: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"items\.parquet, .*column embedding, row 0: holds a vector of 8 values"):
        train(make_config(warm_start=[section(items[0])], **{"tables.1.dim": 16}), shown=False)
    assert not list((tmp_path / "runs").glob("small-*"))


def test_a_path_on_the_command_line_is_relative_to_the_working_folder(
    make_config: Make, items: tuple[Path, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.yaml").write_text(to_yaml(make_config(warm_start=[section(Path("items.parquet"))])))
    assert load_config(tmp_path / "config.yaml").warm_start[0].path == str(items[0])
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    changed = load_config(tmp_path / "config.yaml", ["warm_start.0.path=mine.parquet"])
    assert changed.warm_start[0].path == str(elsewhere / "mine.parquet")

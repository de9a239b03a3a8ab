"""Each example, on a cut of its data."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from embtables.pipelines.config import load_config
from embtables.pipelines.training.train import train

EXAMPLES = Path(__file__).parents[1] / "examples"
DATA = os.environ.get("EMBTABLES_DATA")


@pytest.mark.slow
def test_online_retail_beats_its_rule(tmp_path: Path) -> None:
    # Three months: enough for history, small enough for a test. No figure of this cut is quoted anywhere.
    config = load_config(
        EXAMPLES / "online_retail" / "dcnv2.yaml",
        [
            "data.files=log/2010-12-*.parquet",
            "data.split.validation_from=2010-12-16",
            "data.split.test_from=2010-12-20",
            "train.epochs=1",
            "train.batch_size=1024",
            f"train.runs_dir={tmp_path}",
        ],
    )
    report = train(config, shown=False)
    assert report["auc"] > 0.6
    assert report["auc"] > report["baselines"]["rule_score"]["auc"]
    assert report["slices"]["cold_items"]["rows"] == 0
    assert report["run_dir"].startswith(str(tmp_path))


@pytest.mark.slow
@pytest.mark.skipif(DATA is None, reason="MovieLens may not be shipped; set EMBTABLES_DATA to a folder with ml1m/")
@pytest.mark.parametrize("name", ["dcnv2", "deepfm"])
def test_movielens_learns(tmp_path: Path, name: str) -> None:
    config = load_config(
        EXAMPLES / "movielens" / f"{name}.yaml",
        [f"data.path={DATA}/ml1m", "train.epochs=1", "train.max_steps=60", f"train.runs_dir={tmp_path}"],
    )
    report = train(config, shown=False)
    assert report["auc"] > 0.75
    assert report["evaluated_rows"] > 70_000

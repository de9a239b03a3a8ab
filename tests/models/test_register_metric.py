"""A metric from outside the package: in every report, of slices and labels too, and it can stop a run early."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import embtables
from embtables.errors import ConfigError
from embtables.models.metrics import forget_metric
from embtables.pipelines.call.runs import evaluate
from embtables.pipelines.config import RunConfig
from embtables.pipelines.trained.run import CheckpointName
from embtables.pipelines.training.train import train
from tests.pipelines.conftest import log_dir, make_config

__all__ = ["log_dir", "make_config"]
Make = Callable[..., RunConfig]


class Error:
    """The mean distance of a score from its label."""

    def __init__(self) -> None:
        self.sum = 0.0
        self.rows = 0

    def update(self, scores: Any, labels: Any, weights: Any, groups: Any) -> None:
        self.sum += float(np.abs(scores - labels).sum())
        self.rows += len(scores)

    def compute(self) -> dict[str, float | None]:
        return {"mean_error": self.sum / self.rows if self.rows else None}


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    embtables.register_metric(embtables.MetricSpec("error", Error, larger_is_better={"mean_error": False}))
    yield
    forget_metric("error")


def test_it_is_in_reports_slices_and_decides_which_version_is_best(make_config: Make, log_dir: Path) -> None:
    slices = [{"name": "few", "where": ["user < 3"]}]
    report = train(
        make_config(
            **{
                "evaluate": {"slices": slices, "baseline_columns": ["price"]},
                "train.epochs": 6,
                "train.early_stopping": {"metric": "mean_error", "patience": 2},
            }
        ),
        shown=False,
    )
    assert 0.0 < report["mean_error"] < 1.0
    assert 0.0 < report["slices"]["few"]["mean_error"] < 1.0
    assert "mean_error" not in report["baselines"]["price"]
    run = Path(report["run_dir"])
    versions: tuple[CheckpointName, ...] = ("best", "last")
    lines = [evaluate(run, "validation", checkpoint=name, shown=False)["mean_error"] for name in versions]
    assert lines[0] <= lines[1]


def test_a_figure_that_no_metric_has_is_refused(make_config: Make) -> None:
    with pytest.raises(ConfigError, match=r"train\.early_stopping\.metric: there is no figure 'acc' to monitor"):
        make_config(**{"train.early_stopping": {"metric": "acc"}})
    with pytest.raises(ConfigError, match="to monitor; there are: auc, gauc, log_loss, normalised_entropy, mean_error"):
        make_config(**{"train.early_stopping": {"metric": "calibration"}})


def test_names_are_taken_once() -> None:
    with pytest.raises(ConfigError, match="there is a metric 'error' already"):
        embtables.register_metric(embtables.MetricSpec("error", Error))
    with pytest.raises(ConfigError, match="metric 'ranking' has a figure 'auc' already"):
        embtables.register_metric(embtables.MetricSpec("mine", Error, larger_is_better={"auc": True}))

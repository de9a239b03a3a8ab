"""Losses, scores and weights that are not finite: the run ends, says why, and keeps nothing of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from embtables.errors import TrainingError
from embtables.models.figures import PointwiseFigures
from embtables.pipelines.config import Evaluate, RunConfig
from embtables.pipelines.json_text import json_text
from embtables.pipelines.run_dir import RunDir
from embtables.pipelines.training.learner import Learner
from embtables.pipelines.training.loop import TrainLoop
from embtables.pipelines.training.train import resume, train
from embtables.state.read.find import find
from tests.contents import flat
from tests.pipelines.training.test_train import tensors
from tests.shard.groups_for_tests import Group

Make = Callable[..., RunConfig]
HUGE = {
    "train.dense_optimizer": {"learning_rate": 1e30},
    "tables.0.optimizer": {"kind": "sgd", "learning_rate": 1e30},
    "tables.1.optimizer": {"kind": "sgd", "learning_rate": 1e30},
    "train.early_stopping": {"metric": "auc", "patience": 5},
}


def test_learning_rates_that_are_too_high_end_the_run(make_config: Make, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"step 2: the loss is (nan|inf)") as raised:
        train(make_config(**HUGE), shown=False)
    assert raised.value.path["step"] == 2
    text = str(raised.value)
    assert "train.dense_optimizer 1e+30" in text
    assert "table user 1e+30" in text
    assert "dense column price" in text  # the largest values are named whatever the cause
    assert not list((tmp_path / "runs").glob("*"))  # there was nothing to keep


def test_ranks_end_with_the_same_error(make_config: Make, group: Callable[[int], Group]) -> None:
    config = make_config(**HUGE, **{"model.dropout": 0.0})
    run = RunDir.create(config)
    errors = group(2).run("tests.pipelines.distributed.ranks_for_tests:error_of", config, str(run.path))
    assert errors[0] == errors[1]
    assert errors[0][0] == "TrainingError"
    assert "step 2: the loss is" in errors[0][1]


def step_with(monkeypatch: pytest.MonkeyPatch, number: int, change: Callable[[Any], None]) -> None:
    """Changes the batch of one step."""
    step = TrainLoop._step

    def changed(loop: TrainLoop, item: Any, of_all: Any) -> torch.Tensor:
        if loop.state.step + 1 == number:
            change(item.batch)
        return step(loop, item, of_all)

    monkeypatch.setattr(TrainLoop, "_step", changed)


@pytest.mark.parametrize(
    ("value", "cause"),
    [
        (float("inf"), "dense column price holds values that are not finite in float32"),
        (3e38, "dense column price with values up to 3e+38; give it transforms"),
    ],
)
def test_a_column_is_named_and_the_last_version_is_good(
    make_config: Make, monkeypatch: pytest.MonkeyPatch, value: float, cause: str
) -> None:
    changes = {"train.checkpoint_every_steps": 5, "model.dropout": 0.0}
    step_with(monkeypatch, 9, lambda batch: batch.dense[3].fill_(value))
    with pytest.raises(TrainingError, match="step 9: the loss is") as raised:
        train(make_config(**changes), shown=False)
    assert cause in str(raised.value)
    monkeypatch.undo()
    (run,) = Path(make_config().train.runs_dir).glob("*")
    assert find(run / "checkpoints", "last")[-1].content["state"]["step"] == 5
    report = resume(RunDir.open(run), shown=False)  # without the bad row it goes on to the end
    whole = train(make_config(**changes), shown=False)
    assert all(np.array_equal(v, tensors(report)[name]) for name, v in tensors(whole).items())


def test_nothing_of_the_step_is_kept(make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config(**{"train.max_steps": 1})
    made: list[tuple[Learner, dict[str, Any], dict[str, Any]]] = []
    taken = Learner.train_step

    def watched(learner: Learner, batch: Any, factor: float, whole_weight: float | None = None) -> torch.Tensor:
        batch.dense[0] = float("nan")
        made.append((learner, flat(learner.tables), {n: v.clone() for n, v in learner.model.state_dict().items()}))
        return taken(learner, batch, factor, whole_weight)

    monkeypatch.setattr(Learner, "train_step", watched)
    with pytest.raises(TrainingError, match="the loss is nan"):
        train(config, shown=False)
    learner, rows, dense = made[0]
    assert all(bool(np.isfinite(v).all()) for n, v in flat(learner.tables).items() if v.dtype == np.float32)
    assert all(torch.equal(value, dense[name]) for name, value in learner.model.state_dict().items())
    assert {n: v.shape for n, v in rows.items() if n.startswith("user/columns")} == {
        n: v.shape for n, v in flat(learner.tables).items() if n.startswith("user/columns")
    }


def test_a_version_of_weights_that_are_not_finite_is_not_written(
    make_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = Learner.train_step

    def spoiled(learner: Learner, *arguments: Any) -> torch.Tensor:
        loss = taken(learner, *arguments)
        with torch.no_grad():
            next(learner.model.parameters()).fill_(float("inf"))
        return loss

    monkeypatch.setattr(Learner, "train_step", spoiled)
    with pytest.raises(TrainingError, match=r"step 1: the dense weights .* are not finite"):
        train(make_config(**{"train.max_steps": 1, "data.split": None}), shown=False)


def test_a_norm_that_is_not_finite_ends_the_run(make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embtables.tables.table_set.Tables.gradient_norm", lambda tables: float("inf"))
    with pytest.raises(TrainingError, match="step 1: the norm of the gradients is inf"):
        train(make_config(**{"train.clip_norm": 1.0}), shown=False)


def test_scores_that_are_not_finite_are_no_figures() -> None:
    figures = PointwiseFigures(["y"], Evaluate(), torch.sigmoid)
    rows = np.zeros(3, [("scores", np.float32, (1,)), ("labels", np.float32, (1,)), ("baselines", np.float32, (0,))])
    figures.update(rows)
    rows["scores"][1] = np.nan
    with pytest.raises(TrainingError, match="1 of 3 scores are not finite"):
        figures.update(rows)


def test_json_has_no_number_that_is_not_finite() -> None:
    value = {"a": float("nan"), "b": [1.5, float("inf"), {"c": -float("inf")}], "d": (1, None, "NaN", True)}
    assert json.loads(json_text(value)) == {"a": None, "b": [1.5, None, {"c": None}], "d": [1, None, "NaN", True]}


def test_figures_that_are_not_finite_are_null_in_files(make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    compute = PointwiseFigures.compute
    monkeypatch.setattr(PointwiseFigures, "compute", lambda figures: {**compute(figures), "odd": float("nan")})
    run = Path(train(make_config(), shown=False)["run_dir"])

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    report = json.loads((run / "report.json").read_text(), parse_constant=refuse)
    lines = [json.loads(line, parse_constant=refuse) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert report["odd"] is None
    assert [line["odd"] for line in lines if line["part"] == "validation"] == [None, None]

"""A trained run loaded for inference: its configuration, transforms and learner at the best (or last) checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embtables.features import FittedTransforms
from embtables.pipelines.config import RunConfig
from embtables.pipelines.prepare.log_splits import with_absolute_joins, with_prepared_data
from embtables.pipelines.run_dir import RunDir
from embtables.pipelines.sources.parquet import Log, Part
from embtables.pipelines.training import checkpoint
from embtables.pipelines.training.evaluate import evaluate
from embtables.pipelines.training.learner import Learner
from embtables.pipelines.training.run_content import run_content
from embtables.pipelines.training.saved_config import refuse_other_schema


@dataclass(frozen=True)
class LoadedRun:
    """What evaluation and prediction need of a run."""

    config: RunConfig
    fitted: FittedTransforms
    learner: Learner
    step: int


def load_run(run: RunDir, which: checkpoint.Which | None = None, overrides: tuple[str, ...] = ()) -> LoadedRun:
    """The run at its best checkpoint where it has one, else at its last.

    Raises:
        StateError: there is no checkpoint, it is damaged, or the overrides make it another schema's.
    """
    config = with_absolute_joins(run.config(overrides))
    chosen: checkpoint.Which = which or ("best" if checkpoint.has_best(run.checkpoints) else "last")
    chain = checkpoint.find(run.checkpoints, chosen)
    content = run_content(chain[-1])
    refuse_other_schema(config, content)
    learner = Learner(config, artifacts=checkpoint.artifacts(run.checkpoints, chain))
    checkpoint.load(run.checkpoints, chain, learner)
    return LoadedRun(config, content.fitted, learner, content.state.step)


def evaluate_run(
    folder: Path, part: Part | None, which: checkpoint.Which | None, overrides: tuple[str, ...]
) -> dict[str, Any]:
    """Figures of a trained run, loaded from its folder, on a part of its log (or of the log that overrides name)."""
    loaded = load_run(RunDir.open(folder), which, overrides)
    config = with_prepared_data(loaded.config)
    figures = evaluate(loaded.learner, config, Log(config, config.data), loaded.fitted, part)
    return {**figures, "part": part, "step": loaded.step, "run_dir": str(folder)}

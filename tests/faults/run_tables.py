"""What a run has learned by its newest version."""

from __future__ import annotations

from pathlib import Path

from embtables.pipelines.run_dir import RunDir
from embtables.pipelines.training import checkpoint
from embtables.pipelines.training.learner import Learner
from embtables.state.read.find import find
from tests.contents import Arrays, flat


def arrays_of(run: Path) -> Arrays:
    """Tables and dense tensors of the newest version, by name."""
    opened = RunDir.open(run)
    learner = Learner(opened.config())
    checkpoint.load(opened.checkpoints, find(opened.checkpoints, "last"), learner)
    return {**flat(learner.tables), **checkpoint.dense_arrays(learner)}


def tables_of(run: Path) -> dict[str, bytes]:
    """The same as bytes."""
    return {name: values.tobytes() for name, values in arrays_of(run).items()}

"""The report of a finished run: figures of its best state, and what it took."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from embtables.pipelines.prepare.log_splits import has_part
from embtables.pipelines.progress import say
from embtables.pipelines.run_place import RunPlace
from embtables.pipelines.sources.parquet import LogPart
from embtables.pipelines.sources.protocol import BatchSource
from embtables.pipelines.training import checkpoint
from embtables.pipelines.training.figures.odd_figures import odd_figures
from embtables.pipelines.training.learner import Learner
from embtables.pipelines.training.rank_agreement import rank_0_says
from embtables.pipelines.training.run_content import RunState, run_content
from embtables.pipelines.warn import Warnings
from embtables.state.read.find import has_best


def final_report(
    learner: Learner,
    run: RunPlace,
    source: BatchSource,
    state: RunState,
    figures_of: Callable[[LogPart], dict[str, Any]],
    warnings: Warnings,
) -> dict[str, Any]:
    """Evaluates the best state, which the learner then holds, on the test part if there is one, else on the validation
    part. The figures come first in the report; `part` follows them.
    """
    config = learner.config
    part: LogPart | None = next((p for p in ("test", "validation") if has_part(config, p)), None)
    figures: dict[str, Any] = dict.fromkeys(learner.task.headline)
    if state.best_step is not None and state.best_step != state.step:
        _load_best(learner, run, state)
    if part is not None:
        figures = figures_of(part)
        warnings.add(odd_figures(figures, part))
    figures["evaluated_rows"] = figures.pop("rows", 0)
    set_aside = figures.pop("quarantined_rows", 0)
    report = {**figures, "part": part, **what_it_took(learner, run, source, state, warnings)}
    report["quarantined_rows"] += set_aside
    return report


def what_it_took(
    learner: Learner, run: RunPlace, source: BatchSource, state: RunState, warnings: Warnings
) -> dict[str, Any]:
    """The part of a report that no evaluation gives: rows, times, steps, tables, what the run began with."""
    return {
        "rows": state.rows,
        "rows_per_second": round(state.rows / state.train_seconds, 1) if state.train_seconds > 0 else None,
        "train_seconds": round(state.train_seconds, 2),
        "steps": state.step,
        "epochs": state.stretch,
        "best_step": state.best_step,
        "quarantined_rows": state.quarantined_rows,
        "quarantined_files": sorted({*state.quarantined_files, *source.bad_files}),
        "tables": {
            name: {"rows": stats.rows, "bytes": sum(stats.bytes_by_column.values()), **stats.counts}
            for name, stats in learner.tables.stats().items()
        },
        "seed": learner.config.train.seed,
        "model": learner.config.model.kind,
        **state.started_from,
        "warnings": warnings.texts,
        "run_dir": None if run.path is None else str(run.path),
    }


def _load_best(learner: Learner, run: RunPlace, state: RunState) -> None:
    """The best state, unless the disk did not take it when it came."""
    world = learner.world
    has = rank_0_says(world, lambda: has_best(run.checkpoints))
    chain = checkpoint.find_on_all_ranks(world, run.checkpoints, "best") if has else None
    if chain is None or run_content(chain[-1]).state.step != state.best_step:
        if world.rank == 0:
            say(f"warning: the best checkpoint, of step {state.best_step}, was not written; the last is evaluated")
        state.best_step = state.step
    else:
        checkpoint.load(run.checkpoints, chain, learner)

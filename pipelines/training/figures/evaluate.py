"""Evaluation of a part of the log: figures over all rows, and over slices.

With several ranks, each scores its rows of every batch; what figures need of a row is then sent to all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embtables.errors import DataError, TrainingError
from embtables.inputs.where import condition_mask
from embtables.models.figures import Figures, Judged
from embtables.models.scorer import Scorer
from embtables.pipelines.config import RunConfig
from embtables.pipelines.progress import RowProgress
from embtables.pipelines.sources.parquet import Log, LogPart, ParquetReader
from embtables.pipelines.training.figures.cold_ids import ColdIds
from embtables.pipelines.training.figures.not_finite import why_scores_are_not_finite
from embtables.pipelines.training.rank_agreement import summed
from embtables.pipelines.warn import Warnings
from embtables.shard.world import SingleRank, World


def evaluate(
    scorer: Scorer,
    config: RunConfig,
    log: Log,
    part: LogPart | None,
    *,
    world: World | None = None,
    quarantine_dir: Path | None = None,
    warnings: Warnings | None = None,
    shown: bool = True,
) -> dict[str, Any]:
    """Figures of the scorer on `part` of the log (None: all rows): those of its task, rows, slices.

    `log` is an opened log of `config`, whose data section may name another one than the scorer was trained on.

    Args:
        world: the ranks that evaluate together, by default this process; all get the same figures.
        warnings: where it is said that nearly no id of a feature is known; None: nothing is looked at.
        quarantine_dir: where bad rows of this rank are listed, with `data.on_bad_row: quarantine`.

    Returns:
        The figures, with `rows` that were evaluated and `quarantined_rows` that were set aside.

    Raises:
        DataError: the part has no rows, or holds bad ones.
        TrainingError: a score is not finite; names rows of the part, and the columns with the largest values.
    """
    settings, world = config.evaluate, world or SingleRank()
    whole = scorer.task.figures(settings)
    slices = {s.name: scorer.task.figures(settings) for s in settings.slices}
    reader = ParquetReader(
        log,
        part,
        batch_size=settings.batch_size,
        fitted=scorer.fitted,
        rank=world.rank,
        world_size=world.size,
        needs=scorer.task.needs(config),
        extra_columns=extra_columns(config, whole),
        quarantine_dir=quarantine_dir,
    )
    cold = None if warnings is None else ColdIds(config, scorer.trained_tables, log, part)
    seen = 0
    with RowProgress(f"evaluate {part or 'all rows'}", reader.total_rows_hint, shown=shown) as progress:
        for item in reader:
            if cold is not None:
                cold.observe(item.batch)
            judged = whole.judged(scorer.outputs(item.batch), item.batch, item.extra)
            rows, in_slices = of_all_ranks(world, judged, slices_of(config, item.batch.num_rows, item.extra))
            if not len(rows):
                continue  # all of them were set aside
            try:
                whole.update(rows)
            except TrainingError as error:  # at all ranks alike
                where = f"rows {seen + 1:,} to {seen + len(rows):,} of the {part or 'whole'} part"
                why = why_scores_are_not_finite(item.batch, config, scorer.model, world)
                raise TrainingError(f"{where}: {error.message}. {why}", **error.path) from None
            for number, figures in enumerate(slices.values()):
                figures.update(rows[in_slices[:, number]])
            seen += len(rows)
            progress.advance(len(rows))
    if warnings is not None and cold is not None:
        warnings.add(cold.warnings())
    causes = summed(world, reader.quarantine.counts)
    if seen == 0:
        raise no_rows(part, causes)
    report = {**whole.compute(), "rows": seen, "quarantined_rows": sum(causes.values())}
    if slices:
        report["slices"] = {name: figures.compute() for name, figures in slices.items()}
    return report


def no_rows(part: LogPart | None, causes: Mapping[str, int]) -> DataError:
    """The error of a part without rows; causes: of rows that were set aside, how many."""
    if not causes:
        return DataError(f"the {part or 'whole'} part holds no rows; look at data.split and data.where")
    first, count = max(causes.items(), key=lambda item: item[1])
    return DataError(
        f"no row of the {part or 'whole'} part is left: all {sum(causes.values()):,} are bad and were set aside, "
        f"{count:,} of them because column {first}"
    )


def extra_columns(config: RunConfig, figures: Figures[Any]) -> tuple[str, ...]:
    """The columns of the log that figures and slices read beside a batch."""
    conditions = [c.column for s in config.evaluate.slices for c in s.where]
    return tuple(dict.fromkeys((*conditions, *figures.columns)))


def slices_of(config: RunConfig, rows: int, extra: pa.Table | None) -> npt.NDArray[np.bool_]:
    """(rows, n_slices) which slices each row belongs to."""
    found = np.zeros((rows, len(config.evaluate.slices)), np.bool_)
    if extra is not None:
        for number, s in enumerate(config.evaluate.slices):
            found[:, number] = condition_mask(extra, s.where)
    return found


def of_all_ranks(world: World, judged: Judged, slices: npt.NDArray[np.bool_]) -> tuple[Judged, npt.NDArray[np.bool_]]:
    """The rows of the whole batch, in its order, and their slices."""
    if world.size == 1:
        return judged, slices
    own = np.empty(len(judged), [("judged", judged.dtype), ("slices", np.bool_, slices.shape[1:])])
    own["judged"], own["slices"] = judged, slices
    rows = np.frombuffer(b"".join(world.gather_bytes(own.tobytes())), own.dtype)
    return rows["judged"], rows["slices"]

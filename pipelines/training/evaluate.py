"""Evaluation of a part of the log: figures over all rows, over slices, and of baseline columns on the same rows.

Of several ranks each scores its rows of every batch; what figures need of a row then goes to all of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embtables.errors import DataError
from embtables.features import FittedTransforms
from embtables.models.metrics import MetricSet
from embtables.pipelines.config import RunConfig
from embtables.pipelines.progress import RowProgress
from embtables.pipelines.sources.parquet import Log, ParquetReader, Part, ReaderItem
from embtables.pipelines.sources.where import condition_mask
from embtables.pipelines.training.learner import Learner
from embtables.shard.world import SingleRank, World

Floats = npt.NDArray[np.float32]
Judged = npt.NDArray[np.void]


@dataclass
class _Figures:
    """One set of metrics for the model and one for each baseline, over the same rows."""

    labels: tuple[str, ...]
    baselines: tuple[str, ...]
    model: dict[str, MetricSet] = field(init=False)
    baseline: dict[str, MetricSet] = field(init=False)

    def __post_init__(self) -> None:
        self.model = {name: MetricSet() for name in self.labels}
        self.baseline = {name: MetricSet() for name in self.baselines}

    def compute(self) -> dict[str, Any]:
        first, *others = (self.model[name].compute() for name in self.labels)
        report: dict[str, Any] = dict(first)
        if others:
            report["labels"] = dict(zip(self.labels, (first, *others), strict=True))
        if self.baselines:
            # A baseline ranks rows; its values are no probabilities, so only ranking figures mean anything.
            report["baselines"] = {
                name: {key: value for key, value in metrics.compute().items() if key in ("auc", "gauc")}
                for name, metrics in self.baseline.items()
            }
        return report


def evaluate(
    learner: Learner,
    config: RunConfig,
    log: Log,
    fitted: FittedTransforms,
    part: Part | None,
    *,
    world: World | None = None,
    shown: bool = True,
) -> dict[str, Any]:
    """Figures of the learner on `part` of the log (None: all rows): auc, log_loss, ..., rows, slices, baselines.

    `log` is an opened log of `config`, whose data section may name another one than the learner was trained on.

    Args:
        world: the ranks that evaluate together, by default this process; all get the same figures.
    """
    settings, world = config.evaluate, world or SingleRank()
    labels = tuple(label.name or label.column for label in config.labels)
    whole = _Figures(labels, settings.baseline_columns)
    slices = {s.name: _Figures(labels, settings.baseline_columns) for s in settings.slices}
    reader = ParquetReader(
        log,
        part,
        batch_size=settings.batch_size,
        fitted=fitted,
        rank=world.rank,
        world_size=world.size,
        extra_columns=_extra_columns(config),
    )
    with RowProgress(f"evaluate {part or 'all rows'}", reader.total_rows_hint, shown=shown) as progress:
        for item in reader:
            rows = _of_all_ranks(world, _judged(config, learner.scores(item.batch).numpy(), item))
            _update(whole, rows)
            for number, figures in enumerate(slices.values()):
                _update(figures, rows[rows["slices"][:, number]])
            progress.advance(len(rows))
    report = whole.compute()
    if report["rows"] == 0:
        raise DataError(f"the {part or 'whole'} part holds no rows; look at data.split and data.where")
    if slices:
        report["slices"] = {name: figures.compute() for name, figures in slices.items()}
    return report


def _judged(config: RunConfig, scores: Floats, item: ReaderItem) -> Judged:
    """What figures need of each row of a batch (B,): scores (n_labels,), labels (n_labels,), weight, group, slices
    (n_slices,) that it belongs to, and baselines (n_baselines,); of what the configuration does not name, nothing.
    """
    settings, batch, extra = config.evaluate, item.batch, item.extra
    fields: list[tuple[str, type, tuple[int, ...]]] = [
        ("scores", np.float32, scores.shape[1:]),
        ("labels", np.float32, scores.shape[1:]),
        ("slices", np.bool_, (len(settings.slices),)),
        ("baselines", np.float32, (len(settings.baseline_columns),)),
    ]
    fields += [("weight", np.float32, ())] if batch.weight is not None else []
    fields += [("group", np.int64, ())] if settings.group_column is not None else []
    rows = np.empty(batch.num_rows, np.dtype(fields))
    rows["scores"], rows["labels"] = scores, batch.labels.numpy()
    if batch.weight is not None:
        rows["weight"] = batch.weight.numpy()
    if extra is not None:
        for number, s in enumerate(settings.slices):
            rows["slices"][:, number] = condition_mask(extra, s.where)
        for number, name in enumerate(settings.baseline_columns):
            rows["baselines"][:, number] = extra.column(name).to_numpy().astype(np.float32)
        if settings.group_column is not None:
            rows["group"] = _group_ids(extra.column(settings.group_column))
    return rows


def _of_all_ranks(world: World, rows: Judged) -> Judged:
    """The rows of the whole batch, in its order."""
    if world.size == 1:
        return rows
    return np.frombuffer(b"".join(world.gather_bytes(rows.tobytes())), rows.dtype)


def _update(figures: _Figures, rows: Judged) -> None:
    names = rows.dtype.names or ()
    weight = rows["weight"] if "weight" in names else None
    groups = rows["group"].copy() if "group" in names else None  # kept by the figures: not with the whole rows
    for index, name in enumerate(figures.labels):
        figures.model[name].update(rows["scores"][:, index], rows["labels"][:, index], weight, groups)
    for index, name in enumerate(figures.baselines):
        figures.baseline[name].update(rows["baselines"][:, index], rows["labels"][:, 0], weight, groups)


def _group_ids(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """A 64-bit integer a group: integers as they are, strings by their hash."""
    from embtables.ids.strings import hash_strings

    if pa.types.is_integer(column.type):
        values: npt.NDArray[np.int64] = column.cast(pa.int64(), safe=False).fill_null(0).to_numpy()
        return values
    return hash_strings(column)


def _extra_columns(config: RunConfig) -> tuple[str, ...]:
    settings = config.evaluate
    names = [c.column for s in settings.slices for c in s.where]
    names += [*settings.baseline_columns, *([settings.group_column] if settings.group_column else [])]
    return tuple(dict.fromkeys(names))

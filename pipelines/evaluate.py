"""Evaluation of a part of the log: figures over all rows, over slices, and of baseline columns on the same rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embtables.errors import DataError
from embtables.features import FittedTransforms
from models.metrics import MetricSet
from pipelines.config import RunConfig
from pipelines.learner import Learner
from pipelines.parquet import Log, ParquetReader, Part
from pipelines.progress import RowProgress
from pipelines.reader.where import condition_mask

Floats = npt.NDArray[np.float32]


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
    learner: Learner, config: RunConfig, log: Log, fitted: FittedTransforms, part: Part | None, *, shown: bool = True
) -> dict[str, Any]:
    """Figures of the learner on `part` of the log (None: all rows): auc, log_loss, ..., rows, slices, baselines.

    `log` is an opened log of `config`, whose data section may name another one than the learner was trained on.
    """
    settings = config.evaluate
    labels = tuple(label.name or label.column for label in config.labels)
    whole = _Figures(labels, settings.baseline_columns)
    slices = {s.name: _Figures(labels, settings.baseline_columns) for s in settings.slices}
    reader = ParquetReader(
        log, part, batch_size=settings.batch_size, fitted=fitted, extra_columns=_extra_columns(config)
    )
    with RowProgress(f"evaluate {part or 'all rows'}", reader.total_rows_hint, shown=shown) as progress:
        for item in reader:
            batch = item.batch
            scores = learner.scores(batch).numpy()
            weight = None if batch.weight is None else batch.weight.numpy()
            rows = _Rows(scores, batch.labels.numpy(), weight, item.extra)
            _update(whole, rows, None, settings.group_column)
            for s in settings.slices:
                assert item.extra is not None
                _update(slices[s.name], rows, condition_mask(item.extra, s.where), settings.group_column)
            progress.advance(batch.num_rows)
    report = whole.compute()
    if report["rows"] == 0:
        raise DataError(f"the {part or 'whole'} part holds no rows; look at data.split and data.where")
    if slices:
        report["slices"] = {name: figures.compute() for name, figures in slices.items()}
    return report


@dataclass(frozen=True, slots=True)
class _Rows:
    scores: Floats  # (B, n_labels)
    labels: Floats  # (B, n_labels)
    weight: Floats | None  # (B,)
    extra: pa.Table | None


def _update(figures: _Figures, rows: _Rows, mask: npt.NDArray[np.bool_] | None, group_column: str | None) -> None:
    keep: Any = slice(None) if mask is None else mask
    weight = None if rows.weight is None else rows.weight[keep]
    groups = None
    if group_column is not None and rows.extra is not None:
        groups = _group_ids(rows.extra.column(group_column))[keep]
    for index, name in enumerate(figures.labels):
        figures.model[name].update(rows.scores[keep, index], rows.labels[keep, index], weight, groups)
    for name in figures.baselines:
        assert rows.extra is not None
        values = rows.extra.column(name).to_numpy().astype(np.float32)[keep]
        figures.baseline[name].update(values, rows.labels[keep, 0], weight, groups)


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

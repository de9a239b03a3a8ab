"""`Figures`: what an evaluation reports of a task's outputs, accumulated batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from torch import Tensor

from embtables.errors import DataError, TrainingError
from embtables.inputs.batch import Batch
from embtables.inputs.columns import plain_ids
from embtables.inputs.values import BadRowsError, one_array
from embtables.models.baseline import BaselineFigures, baseline_numbers
from embtables.models.metrics import NO_GROUP, MetricSet

O_contra = TypeVar("O_contra", contravariant=True)  # outputs of a model
Judged = npt.NDArray[np.void]
# What a group called like NO_GROUP is called instead: any number that is as unlikely as the hash of a string.
_IN_ITS_PLACE = 0x5DEECE66D1B3A4F7


class FigureColumns(Protocol):
    """Columns of the log that figures read beside the batch (the `evaluate` section of a configuration)."""

    @property
    def group_column(self) -> str | None:
        """Whose groups GAUC averages over."""

    @property
    def baseline_columns(self) -> tuple[str, ...]:
        """Numbers to judge as if they were predictions."""


class Figures(Protocol[O_contra]):
    """Figures of one set of rows.

    Several ranks each judge their own rows; what `judged` returns travels to all of them, so every rank updates with
    all rows of a batch, in the batch's order, and computes the same.
    """

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the log that `judged` reads."""

    def judged(self, outputs: O_contra, batch: Batch, columns: pa.Table | None) -> Judged:
        """What the figures need of each row of a batch: (B,) of a structured type without objects."""

    def update(self, rows: Judged) -> None:
        """Adds rows."""

    def compute(self) -> dict[str, Any]:
        """The figures by name, JSON-able; None if one is undefined."""


class PointwiseFigures:
    """All registered metrics of each label's scores, and the ranking ones of baseline columns on the same rows.

    The first label's figures stand for themselves; of several labels, `labels` has those of each by its name. Rows in
    which a baseline column is null or NaN have no place in its order: its figures leave them out and count them.
    """

    def __init__(self, labels: Sequence[str], columns: FigureColumns, scores: Callable[[Tensor], Tensor]) -> None:
        self._scores = scores
        self._group = columns.group_column
        self._labels = {name: MetricSet() for name in labels}
        self._baselines = {name: BaselineFigures() for name in columns.baseline_columns}

    @property
    def columns(self) -> tuple[str, ...]:
        """See Figures."""
        return (*self._baselines, *([self._group] if self._group is not None else []))

    def judged(self, outputs: Tensor, batch: Batch, columns: pa.Table | None) -> Judged:
        """See Figures: scores (n_labels,), labels (n_labels,), baselines, and weight and group if there are any."""
        scores = self._scores(outputs).numpy()
        fields: list[tuple[str, type, tuple[int, ...]]] = [
            ("scores", np.float32, scores.shape[1:]),
            ("labels", np.float32, scores.shape[1:]),
            ("baselines", np.longdouble, (len(self._baselines),)),
        ]
        fields += [("weight", np.float32, ())] if batch.weight is not None else []
        fields += [("group", np.int64, ())] if self._group is not None else []
        rows = np.empty(batch.num_rows, np.dtype(fields))
        rows["scores"], rows["labels"] = scores, batch.labels.numpy()
        if batch.weight is not None:
            rows["weight"] = batch.weight.numpy()
        if columns is not None:
            for number, name in enumerate(self._baselines):
                rows["baselines"][:, number] = baseline_numbers(name, columns.column(name))
            if self._group is not None:
                rows["group"] = group_ids(self._group, columns.column(self._group))
        return rows

    def update(self, rows: Judged) -> None:
        """See Figures.

        Raises:
            TrainingError: a score is not finite: no figure of them means anything.
        """
        names = rows.dtype.names or ()
        if wrong := len(rows) - int(np.isfinite(rows["scores"]).all(axis=1).sum()):
            raise TrainingError(f"{wrong:,} of {len(rows):,} scores are not finite")
        # Metrics keep what they are given: columns of their own, without the rest of the rows.
        weight = rows["weight"].copy() if "weight" in names else None
        groups = rows["group"].copy() if "group" in names else None
        labels = [rows["labels"][:, index].copy() for index in range(len(self._labels))]
        for index, metrics in enumerate(self._labels.values()):
            metrics.update(rows["scores"][:, index].copy(), labels[index], weight, groups)
        for index, baseline in enumerate(self._baselines.values()):
            baseline.update(rows["baselines"][:, index], labels[0], weight, groups)

    def compute(self) -> dict[str, Any]:
        """See Figures."""
        of_labels = {name: metrics.compute() for name, metrics in self._labels.items()}
        report: dict[str, Any] = dict(next(iter(of_labels.values())))
        if len(of_labels) > 1:
            report["labels"] = of_labels
        if self._baselines:
            report["baselines"] = {name: baseline.compute() for name, baseline in self._baselines.items()}
        return report


def group_ids(name: str, column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """A 64-bit integer for each group, as of ids: integers as they are, strings by their hash; `NO_GROUP` for a null.

    Raises:
        DataError: the column holds what cannot be ids.
    """
    array = one_array(column)
    try:
        found = plain_ids(name, array)
    except BadRowsError:
        raise
    except DataError as error:
        raise DataError(f"holds {array.type}; group_column needs integers, strings or times", column=name) from error
    found = np.where(found == NO_GROUP, _IN_ITS_PLACE, found)
    return np.where(array.is_valid().to_numpy(zero_copy_only=False), found, NO_GROUP) if array.null_count else found

"""`Task`: what a run learns. `Pointwise`: probabilities of labels, a row at a time (click-through rates)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from embtables.errors import ConfigError
from embtables.inputs.batch import Batch
from embtables.inputs.features import Needs
from embtables.models.figures import FigureColumns, Figures, PointwiseFigures
from embtables.models.losses import (
    late_positive_calibration,
    late_positive_importance,
    log_odds_shift,
    weighted_bce_with_logits,
)
from embtables.models.metrics import Monitor, monitor_of
from embtables.schema import LateActions, Schema

O = TypeVar("O")  # noqa: E741 - outputs of a model


class Task(Protocol[O]):
    """What a run learns: how a model is called, its loss, and the figures that judge it.

    Attributes:
        headline: the figures to show of an evaluation, first ones first.
    """

    headline: tuple[str, ...]

    def needs(self, schema: Schema) -> Needs:
        """What loss and figures read of a batch beside outputs; batches of training and evaluation have no more.

        Raises:
            ConfigError: the schema lacks it.
        """

    def forward(self, model: nn.Module, batch: Batch) -> O:
        """The model's outputs for B rows, in float32."""

    def loss(self, outputs: O, batch: Batch) -> Tensor:
        """A scalar: the mean over the batch's rows by their weights; 0 for a batch without rows."""

    def scores(self, outputs: O) -> Tensor:
        """What a user gets for each row: (B, n) float32."""

    def figures(self, columns: FigureColumns) -> Figures[O]:
        """Figures without rows, over labels and the columns of the log that are named."""

    def monitor(self, figure: str | None) -> Monitor:
        """The figure that decides which version is best: the one named, or the task's own choice.

        Raises:
            ConfigError: there is no such figure.
        """


class Pointwise:
    """Probabilities of labels: weighted binary cross entropy over logits (B, n_labels).

    Args:
        labels: their names.
        negative_sampling_rate: the share of negatives that the training log kept; scores are corrected by its log-odds.
            None: all of them.
        late: how samples or scores make up for positives that come after their negatives.
    """

    headline: tuple[str, ...] = ("auc", "log_loss")

    def __init__(
        self, labels: Sequence[str], negative_sampling_rate: float | None = None, late: LateActions | None = None
    ) -> None:
        self._labels = tuple(labels)
        self._rate = negative_sampling_rate
        self._late = LateActions() if late is None else late

    def needs(self, schema: Schema) -> Needs:
        """See Task."""
        if not schema.labels:
            raise ConfigError("the pointwise task learns labels; name at least one in 'labels'")
        return Needs(labels=True, weight=schema.sample_weight is not None)

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        """See Task: logits (B, n_labels).

        Raises:
            ConfigError: the model gives something else.
        """
        logits = model(batch.ids, batch.dense)
        wanted = (batch.num_rows, len(self._labels))
        # (B,) in place of (B, 1) would be broadcast against the labels: each row would learn the labels of all.
        if not isinstance(logits, Tensor) or tuple(logits.shape) != wanted:
            shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ConfigError(
                f"the model's output must be logits of shape (rows, labels) = {wanted}, received {shape}; "
                "for one label end it with unsqueeze(1)"
            )
        return logits.float()

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """See Task."""
        importance = None
        if self._late.correction == "weighting":
            assert self._late.share is not None
            importance = late_positive_importance(self._of_all_negatives(outputs), batch.labels, self._late.share)
        return weighted_bce_with_logits(outputs, batch.labels, batch.weight, importance)

    def scores(self, outputs: Tensor) -> Tensor:
        """See Task: probabilities (B, n_labels)."""
        found = torch.sigmoid(self._of_all_negatives(outputs))
        if self._late.correction != "calibration":
            return found
        assert self._late.share is not None
        return late_positive_calibration(found, self._late.share)

    def _of_all_negatives(self, outputs: Tensor) -> Tensor:
        return outputs if self._rate is None else log_odds_shift(outputs, self._rate)

    def figures(self, columns: FigureColumns) -> PointwiseFigures:
        """See Task."""
        return PointwiseFigures(self._labels, columns, self.scores)

    def monitor(self, figure: str | None) -> Monitor:
        """See Task; by default AUC."""
        return monitor_of(figure or "auc")


def task_of(schema: Schema, negative_sampling_rate: float | None = None, late: LateActions | None = None) -> Task[Any]:
    """What a run with this schema learns, or a version of it scores: the pointwise task, the only one so far."""
    return Pointwise([label.name or label.column for label in schema.labels], negative_sampling_rate, late)

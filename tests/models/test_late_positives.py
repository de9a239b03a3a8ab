"""Corrections for positives that are negatives first: the formulas of the paper, and what the loss learns."""

from __future__ import annotations

import pytest
import torch

from embtables.inputs.batch import Batch, JaggedIds
from embtables.models.losses import late_positive_calibration, late_positive_importance
from embtables.models.task import Pointwise
from embtables.schema import LateActions

P = torch.tensor([[0.01], [0.3], [0.5], [0.9]])


def test_with_every_positive_late_the_weights_are_those_of_the_paper() -> None:
    logits = torch.logit(P)
    ones, zeros = torch.ones_like(P), torch.zeros_like(P)
    assert torch.allclose(late_positive_importance(logits, ones, 1.0), 1 + P)
    assert torch.allclose(late_positive_importance(logits, zeros, 1.0), (1 - P) * (1 + P))
    biased = P / (1 + P)
    assert torch.allclose(late_positive_calibration(biased, 1.0), biased / (1 - biased))


@pytest.mark.parametrize("share", [0.1, 0.6, 1.0])
def test_importance_is_the_ratio_of_the_two_distributions(share: float) -> None:
    """Counted out: of 1 impression come p (1 - s) positives in time, p s that are late, and 1 - p negatives."""
    in_time, late, never = P * (1 - share), P * share, 1 - P
    positives, negatives = in_time + late, never + late
    total = positives + negatives
    logits = torch.logit(P)
    assert torch.allclose(late_positive_importance(logits, torch.ones_like(P), share), P / (positives / total))
    assert torch.allclose(late_positive_importance(logits, torch.zeros_like(P), share), (1 - P) / (negatives / total))
    assert torch.allclose(late_positive_calibration(positives / total, share), P)


def test_probabilities_stay_probabilities() -> None:
    extreme = torch.tensor([0.0, 0.4, 0.5, 0.99, 1.0])
    found = late_positive_calibration(extreme, 1.0)
    assert found.isfinite().all()
    assert (found.min(), found.max()) == (0.0, 1.0)
    weights = late_positive_importance(torch.tensor([[-200.0], [200.0]]), torch.zeros(2, 1), 1.0)
    assert weights.isfinite().all()
    assert weights.min() >= 0.0


def test_the_weights_have_no_gradient() -> None:
    logits = torch.zeros(2, 1, requires_grad=True)
    assert not late_positive_importance(logits, torch.ones(2, 1), 0.5).requires_grad


def learned(task: Pointwise, labels: torch.Tensor) -> float:
    """What the task scores after it has learned one constant."""
    rows = len(labels)
    ids = JaggedIds((), torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64), rows, None)
    batch = Batch(ids, torch.empty(rows, 0), labels, None, None)
    logit = torch.zeros(1, 1, requires_grad=True)
    for _ in range(400):
        (gradient,) = torch.autograd.grad(task.loss(logit.expand(rows, 1), batch), logit)
        with torch.no_grad():
            logit -= 4.0 * gradient
    return float(task.scores(logit.detach()))


@pytest.mark.parametrize("rate", [None, 0.25])
@pytest.mark.parametrize(("p", "share"), [(0.4, 0.6), (0.05, 1.0), (0.7, 0.2)])
def test_a_constant_rate_is_learned_with_a_correction_and_not_without(
    p: float, share: float, rate: float | None
) -> None:
    """All samples of 2,000 impressions that are clicked with one chance; of the negatives a share is kept."""
    impressions = 2000
    positives = round(impressions * p)
    negatives = round((impressions - positives + positives * share) * (rate or 1.0))
    labels = torch.cat([torch.ones(positives, 1), torch.zeros(negatives, 1)])
    none = learned(Pointwise(["click"], rate), labels)
    assert none == pytest.approx(p / (1 + share * p), abs=2e-3)
    assert abs(none - p) > 0.002
    for correction in ("weighting", "calibration"):
        task = Pointwise(["click"], rate, LateActions(correction=correction, share=share))
        assert learned(task, labels) == pytest.approx(p, abs=2e-3)

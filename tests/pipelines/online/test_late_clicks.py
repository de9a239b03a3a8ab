"""Late clicks from the log to a prediction: what a model learns of the joiner's samples, with each correction."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch.nn import functional

from embtables.inputs.batch import Batch, JaggedIds
from embtables.models.task import Pointwise
from embtables.schema import LateActions
from tests.pipelines.online.events_for_tests import Event, LogInMemory, batch, imp, options, passed, read_all

RATES = {"a": 0.5, "b": 0.15}
LATE_SHARE = 0.6
IMPRESSIONS = 12_000


def world(seed: int) -> tuple[LogInMemory, dict[str, float]]:
    """Impressions of two items, each clicked at a constant rate, some clicks after the window of 100 s. The rates that
    came out, by item."""
    rng, log = random.Random(seed), LogInMemory()
    events: list[Event] = []
    clicks = dict.fromkeys(RATES, 0)
    for number in range(IMPRESSIONS):
        item = "ab"[number % 2]
        events.append(imp(f"{number}", item, number / 10))
        if rng.random() < RATES[item]:
            clicks[item] += 1
            lag = rng.uniform(101, 250) if rng.random() < LATE_SHARE else rng.uniform(0, 99)
            events.append(Event("click", f"{number}", item, number / 10 + lag))
    events.sort(key=lambda event: event.at)
    for first in range(0, len(events), 500):
        log.append(0, batch(events[first : first + 500]))
    passed(log, IMPRESSIONS / 10 + 1000)
    return log, {item: count / (IMPRESSIONS / 2) for item, count in clicks.items()}


def learned(samples: list[tuple[str, str, float, bool]], task: Pointwise) -> dict[str, float]:
    """Scores by item after steps over batches, in the order of the samples."""
    logits = torch.zeros(2, 1, requires_grad=True)
    items = torch.tensor(["ab".index(item) for _, item, _, _ in samples])
    labels = torch.tensor([[label] for _, _, label, _ in samples])
    one_hot = functional.one_hot(items, 2).float()
    ids = JaggedIds((), torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64), len(items), None)
    for _ in range(300):
        whole = Batch(ids, torch.empty(len(items), 0), labels, None, None)
        (gradient,) = torch.autograd.grad(task.loss(one_hot @ logits, whole), logits)
        with torch.no_grad():
            logits -= 5.0 * gradient
    return {item: float(score) for item, score in zip("ab", task.scores(logits.detach())[:, 0], strict=True)}


@pytest.mark.parametrize("negative_rate", [None, 0.5])
def test_the_true_rate_is_learned_with_each_correction_and_not_without(negative_rate: float | None) -> None:
    log, true = world(1)
    changes: dict[str, Any] = {"late_window_seconds": 200, "negative_rate": negative_rate}
    found = read_all(log, options(max_clock_step_seconds=10_000, **changes), batch_rows=4096)
    counts = found.reader.counts
    share = counts["late_positives"] / (counts["late_positives"] + counts["positives"])
    assert share == pytest.approx(LATE_SHARE, abs=0.02)
    scores = {
        kind: learned(found.samples, Pointwise(["click"], negative_rate, late))
        for kind, late in {
            "none": LateActions(),
            "weighting": LateActions(correction="weighting", share=share),
            "calibration": LateActions(correction="calibration", share=share),
        }.items()
    }
    for item, rate in true.items():
        assert scores["none"][item] < rate / (1 + 0.9 * LATE_SHARE * rate)
        for correction in ("weighting", "calibration"):
            assert scores[correction][item] == pytest.approx(rate, abs=0.02)

"""Metrics against scikit-learn, torchrec's definitions and the naive double loop; ties, weights, merging."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss as sklearn_log_loss
from sklearn.metrics import roc_auc_score

from embtables.models.metrics import BinnedAuc, MetricSet, RankingMetric, auc, grouped_auc

rows = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9]),
        st.integers(0, 1),
        st.sampled_from([0.5, 1.0, 3.0]),
        st.integers(0, 3),
    ),
    min_size=1,
    max_size=60,
)


def columns(data: list[tuple[float, int, float, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    s, y, w, g = zip(*data, strict=True)
    return np.array(s, np.float32), np.array(y, np.float32), np.array(w, np.float32), np.array(g, np.int64)


def pairwise(s: np.ndarray, y: np.ndarray, w: np.ndarray) -> float | None:
    won, total, w = 0.0, 0.0, w.astype(np.float64)
    for i in np.flatnonzero(y == 1):
        for j in np.flatnonzero(y == 0):
            total += w[i] * w[j]
            won += w[i] * w[j] * (1.0 if s[i] > s[j] else 0.5 if s[i] == s[j] else 0.0)
    return won / total if total else None


@settings(deadline=None)
@given(rows)
def test_auc_is_the_share_of_ordered_pairs(data: list[tuple[float, int, float, int]]) -> None:
    s, y, w, _ = columns(data)
    expected = pairwise(s, y, w)
    got = auc(s, y, w)
    assert (got is None) == (expected is None)
    if expected is not None:
        assert got == pytest.approx(expected, abs=1e-12)
        assert got == pytest.approx(roc_auc_score(y, s, sample_weight=w), abs=1e-9)


@settings(deadline=None)
@given(rows)
def test_gauc_averages_the_groups_that_hold_both_classes(data: list[tuple[float, int, float, int]]) -> None:
    s, y, w, g = columns(data)
    parts = [(pairwise(s[g == k], y[g == k], w[g == k]), float(w[g == k].sum())) for k in np.unique(g)]
    both = [(a, n) for a, n in parts if a is not None]
    got = grouped_auc(s, y, g, w)
    assert got.groups == len(both)
    assert got.one_class_groups == len(parts) - len(both)
    if both:
        assert got.value == pytest.approx(sum(a * n for a, n in both) / sum(n for _, n in both), abs=1e-9)
    else:
        assert got.value is None


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(2, 3000))
def test_binned_auc_stays_within_its_bound(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n).astype(np.float32)
    s = (rng.standard_normal(n) * 10 ** rng.uniform(-3, 3) + y).astype(np.float32)
    halves = BinnedAuc(), BinnedAuc()
    halves[0].update(s[: n // 2], y[: n // 2])
    halves[1].update(s[n // 2 :], y[n // 2 :])
    halves[0].merge(halves[1])
    exact, got = auc(s, y), halves[0].compute()
    assert (exact is None) == (got is None)
    if exact is not None and got is not None:
        assert abs(exact - got) <= halves[0].error_bound() + 1e-12
        assert halves[0].error_bound() < 0.01 or n < 400


def test_the_set_agrees_with_scikit_learn_and_torchrec() -> None:
    from torchrec.metrics.calibration import compute_calibration
    from torchrec.metrics.ne import compute_cross_entropy, compute_ne

    rng = np.random.default_rng(0)
    s = rng.uniform(0.01, 0.99, 5000).astype(np.float32)
    y = (rng.uniform(size=5000) < s).astype(np.float32)
    w = rng.uniform(0.1, 2.0, 5000).astype(np.float32)
    whole = MetricSet()
    for part in np.array_split(np.arange(5000), 7):
        whole.update(s[part], y[part], w[part])
    got = whole.compute()
    assert got["auc"] == pytest.approx(roc_auc_score(y, s, sample_weight=w), abs=1e-9)
    assert got["log_loss"] == pytest.approx(sklearn_log_loss(y, s, sample_weight=w), abs=1e-6)
    ts, ty, tw = (torch.from_numpy(a).double() for a in (s, y, w))
    entropy = compute_cross_entropy(ty, ts, tw, eta=1e-12).sum()
    ne = compute_ne(entropy, tw.sum(), (tw * ty).sum(), (tw * (1 - ty)).sum(), eta=1e-12)
    assert got["normalised_entropy"] == pytest.approx(float(ne), rel=1e-6)
    assert got["calibration"] == pytest.approx(float(compute_calibration((tw * ts).sum(), (tw * ty).sum())), rel=1e-6)


def test_beyond_exact_rows_auc_comes_from_bins() -> None:
    rng = np.random.default_rng(1)
    s, y = rng.random(300).astype(np.float32), rng.integers(0, 2, 300).astype(np.float32)
    exact, binned = RankingMetric(10_000), RankingMetric(150)
    for part in (slice(0, 100), slice(100, 300)):
        exact.update(s[part], y[part])
        binned.update(s[part], y[part])
    assert exact.compute()["auc_exact"] is True
    assert binned.compute()["auc_exact"] is False
    assert binned.compute()["auc"] == pytest.approx(exact.compute()["auc"], abs=2e-3)


def test_one_class_and_no_rows_leave_figures_undefined() -> None:
    empty = MetricSet().compute()
    assert (empty["auc"], empty["log_loss"], empty["rows"]) == (None, None, 0)
    ones = MetricSet()
    ones.update(np.full(5, 0.9, np.float32), np.ones(5, np.float32))
    assert ones.compute()["auc"] is None
    assert ones.compute()["normalised_entropy"] is None


def test_certain_and_wrong_predictions_keep_the_log_loss_finite() -> None:
    wrong = MetricSet()
    wrong.update(np.array([1.0, 0.0], np.float32), np.array([0.0, 1.0], np.float32))
    assert np.isfinite(wrong.compute()["log_loss"])

"""Values that are judged: quantiles of norms beside those that numpy has."""

from __future__ import annotations

import numpy as np
import pytest

from embtables.rows.content import TableContent
from embtables.serving.versions.checks import BadValuesError, RowNorms, ValueChecks, ValueLimits, check_tensors

D = 4


def content(weights: np.ndarray, scale: float = 1.0, cold: float = 0.0) -> dict[str, TableContent]:
    n = len(weights)
    words = np.zeros(n, np.uint32)
    made = TableContent(
        np.arange(100, 100 + n),
        {"weight": weights.astype(np.float32)},
        words,
        words,
        cold={"weight": np.full((1, D), cold)},
    )
    made.scale = scale
    return {"item": made}


def of_norms(norms: np.ndarray) -> np.ndarray:
    weights = np.zeros((len(norms), D))
    weights[:, 1] = norms
    return weights


@pytest.mark.parametrize("q", [0.5, 0.9, 0.999])
def test_a_quantile_is_exact_to_a_bucket(q: float) -> None:
    norms = np.exp(np.random.default_rng(0).normal(size=20_000) * 3).astype(np.float32)
    found = RowNorms()
    for piece in np.split(norms, 4):
        found.add(piece)
    exact = float(np.quantile(norms, q))
    assert exact <= found.quantile(q) <= exact * 2 ** (2 / 8)
    assert found.rows == 20_000


def test_zeros_and_the_greatest_and_least_norms_have_buckets() -> None:
    found = RowNorms()
    assert found.quantile(0.5) == 0.0
    found.add(np.array([0, 0, 0, 1e-45, 3e38], np.float32))
    assert found.quantile(0.5) == 0.0
    assert found.quantile(1.0) >= 3e38


def test_old_norms_fade() -> None:
    found = RowNorms()
    found.most_rows = 1000
    for _ in range(20):
        found.add(np.full(400, 1.0, np.float32))
    for _ in range(20):
        found.add(np.full(400, 64.0, np.float32))
    assert found.rows <= 1400
    assert found.quantile(0.1) >= 64.0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("row", [0, 40_000, 69_999])
def test_a_weight_that_is_not_finite_is_named_by_its_key(value: float, row: int) -> None:
    weights = np.ones((70_000, D))
    weights[row, 2] = value
    with pytest.raises(
        BadValuesError, match=rf"version serving-3, table item: the row of key {100 + row} has a weight"
    ):
        ValueChecks(ValueLimits()).check_rows("serving-3", content(weights))


def test_a_cold_row_and_a_tensor_are_judged_too() -> None:
    with pytest.raises(BadValuesError, match="its cold row has a weight that is not finite"):
        ValueChecks(ValueLimits()).check_rows("serving-3", content(np.ones((1, D)), cold=np.nan))
    check_tensors("serving-3", {"dense/steps": np.array([1, 2]), "dense/w": np.ones(3, np.float32)})
    with pytest.raises(BadValuesError, match="tensor dense/w: holds numbers that are not finite"):
        check_tensors("serving-3", {"dense/w": np.array([1, np.inf], np.float32)})


def test_norms_are_of_true_weights() -> None:
    checks = ValueChecks(ValueLimits(greatest_norm=10))
    assert checks.check_rows("serving-3", content(of_norms(np.array([16.0])), scale=0.5))["item"].tolist() == [8.0]
    with pytest.raises(BadValuesError, match="has the norm 16, the greatest allowed is 10"):
        checks.check_rows("serving-3", content(of_norms(np.array([16.0]))))


def test_rows_are_held_against_what_was_taken_over() -> None:
    checks = ValueChecks(ValueLimits(least_norm=1.0))
    usual = np.full(2000, 0.5)
    assert checks.check_rows("serving-1", content(of_norms(np.array([1000.0]))))  # nothing is known yet
    checks.took_over(checks.check_rows("serving-1", content(of_norms(usual))))
    for bad, text in (
        (np.append(usual, 60.0), "the row of key 2100 has the norm 60, 100 times that of 99.9 % of the rows is 54.5"),
        (np.full(1000, 10.0), r"100% of 1,000 rows have a norm above 5\.45, which is 10 times"),
    ):
        with pytest.raises(BadValuesError, match=text):
            checks.check_rows("serving-2", content(of_norms(bad)))
    # Few rows may be so long, and so may those of a table of which little is known.
    assert checks.check_rows("serving-2", content(of_norms(np.full(100, 10.0))))


def test_a_snapshot_is_held_against_what_answers_and_then_against_itself() -> None:
    limits = ValueLimits(least_norm=1.0)
    answers = ValueChecks(limits)
    answers.took_over(answers.check_rows("serving-1", content(of_norms(np.full(2000, 0.5)))))
    with pytest.raises(BadValuesError, match="has the norm 60"):
        ValueChecks(limits, answers).check_rows("serving-2", content(of_norms(np.array([60.0]))))
    alone = ValueChecks(limits)
    alone.took_over(alone.check_rows("serving-2", content(of_norms(np.append(np.full(500, 0.5), 60.0)))))
    alone.took_over(alone.check_rows("serving-2", content(of_norms(np.full(1500, 0.5)))))
    with pytest.raises(BadValuesError, match="the row of key 600 has the norm 60"):
        alone.end_snapshot("serving-2")


def test_a_table_that_begins_at_zeros_may_grow() -> None:
    checks = ValueChecks(ValueLimits())
    checks.took_over(checks.check_rows("serving-1", content(np.zeros((5000, D)))))
    assert checks.check_rows("serving-2", content(of_norms(np.full(5000, 9.0))))

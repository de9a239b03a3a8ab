"""Baseline columns: ranked exactly whatever their numbers, rows without a value left out and counted, text refused."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from embtables.errors import DataError
from embtables.inputs.batch import Batch, JaggedIds
from embtables.models.baseline import baseline_numbers
from embtables.models.figures import PointwiseFigures


@dataclass(frozen=True)
class Columns:
    baseline_columns: tuple[str, ...] = ("b",)
    group_column: str | None = None


def batch_of(labels: Sequence[int], weights: Sequence[float] | None = None) -> Batch:
    n = len(labels)
    ids = JaggedIds((), torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64), n, None)
    weight = None if weights is None else torch.tensor(weights, dtype=torch.float32)
    return Batch(ids, torch.empty(n, 0), torch.tensor(labels, dtype=torch.float32).reshape(-1, 1), weight, None)


def figures_of(*batches: tuple[pa.Array, Sequence[int]], groups: Sequence[pa.Array] = ()) -> dict[str, Any]:
    figures = PointwiseFigures(["y"], Columns(group_column="g" if groups else None), lambda scores: scores)
    for number, (column, labels) in enumerate(batches):
        table = pa.table({"b": column})
        table = table.append_column("g", groups[number]) if groups else table
        figures.update(figures.judged(torch.full((len(labels), 1), 0.5), batch_of(labels), table))
    found: dict[str, Any] = figures.compute()
    return found


def auc_of(values: Sequence[Any], labels: Sequence[int]) -> float:
    """The share of ordered pairs, by Python's exact comparison of numbers."""
    pairs = [
        (a, b) for a, y in zip(values, labels, strict=True) if y for b, z in zip(values, labels, strict=True) if not z
    ]
    return sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs) / len(pairs)


edges = st.sampled_from([0, 1, -1, 2**24, 2**53, 2**62, 2**63 - 1, -(2**63)])
integers = st.builds(lambda edge, n: max(-(2**63), min(2**63 - 1, edge + n)), edges, st.integers(-3, 3))
numbers = st.one_of(integers, st.integers(2**63, 2**63 + 3), st.integers(2**64 - 4, 2**64 - 1))


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(integers, st.integers(0, 1)), min_size=2, max_size=30), st.integers(0, 30))
def test_big_integers_are_ranked_exactly_in_any_batches(rows: list[tuple[int, int]], cut: int) -> None:
    values, labels = [v for v, _ in rows], [y for _, y in rows]
    batches = [(pa.array(values[a:b], pa.int64()), labels[a:b]) for a, b in ((0, cut), (cut, len(rows)))]
    found = figures_of(*batches)["baselines"]["b"]
    if len(set(labels)) == 2:
        assert found["auc"] == pytest.approx(auc_of(values, labels), abs=1e-12)
    else:
        assert found["auc"] is None
    assert (found["rows"], found["null_rows"]) == (len(rows), 0)


TYPES: dict[str, pa.Array] = {
    "uint64": pa.array([2**63 + 1, 2**63, 2**64 - 1, 3], pa.uint64()),
    "int64": pa.array([2**53 + 1, 2**53, 2**53 + 2, -(2**63)]),
    "float64": pa.array([1.0 + 2**-40, 1.0, 1e300, -1e300]),
    "infinite": pa.array([0.0, -1.0, float("inf"), float("-inf")]),
    "half": pa.array([0.5, 0.25, 1.0, -1.0], pa.float16()),
    "decimal": pa.array([Decimal("1.5"), Decimal("1.25"), Decimal(2), Decimal(-1)], pa.decimal128(20, 4)),
    "long decimal": pa.array([Decimal(2**63 + n) for n in (1, 0, 2)] + [Decimal(5)], pa.decimal128(20, 0)),
    "numbers in a dictionary": pa.array([7, 6, 9, 5]).dictionary_encode(),
}


@pytest.mark.parametrize("kind", TYPES)
def test_numbers_of_every_type_are_ranked(kind: str) -> None:
    labels = [1, 0, 1, 0]
    assert figures_of((TYPES[kind], labels))["baselines"]["b"]["auc"] == 1.0
    assert figures_of((TYPES[kind], [0, 1, 0, 1]))["baselines"]["b"]["auc"] == 0.0
    assert figures_of((pa.chunked_array([TYPES[kind].slice(0, 1), TYPES[kind].slice(1)]), labels))["auc"] == 0.5


def test_a_column_may_be_whole_in_one_batch_and_not_in_the_next() -> None:
    whole, broken = pa.array([2**53 + 1, 2**53]), pa.array([float(2**53) + 4.0, 0.5])
    assert figures_of((whole, [1, 0]), (broken, [1, 0]))["baselines"]["b"]["auc"] == 1.0
    assert figures_of((whole, [0, 1]), (broken, [1, 0]))["baselines"]["b"]["auc"] == 0.75


def test_bools_rank_false_before_true() -> None:
    found = figures_of((pa.array([True, False, True, None]), [1, 0, 0, 1]))["baselines"]["b"]
    assert found == {"auc": 0.75, "gauc": None, "rows": 3, "null_rows": 1}


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.tuples(
            st.one_of(st.none(), st.just(float("nan")), st.floats(-5, 5)),
            st.integers(0, 1),
            # Rows without a group are left out of GAUC.
            st.one_of(st.none(), st.integers(0, 1)),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_rows_without_a_value_are_left_out_and_counted(rows: list[tuple[float | None, int, int | None]]) -> None:
    column = pa.array([value for value, _, _ in rows], pa.float64())
    report = figures_of((column, [y for _, y, _ in rows]), groups=[pa.array([g for _, _, g in rows])])
    kept = [(value, y, g) for value, y, g in rows if value is not None and not math.isnan(value)]
    found = report["baselines"]["b"]
    assert (found["rows"], found["null_rows"]) == (len(kept), len(rows) - len(kept))
    assert report["rows"] == len(rows)
    if len({y for _, y, _ in kept}) == 2:
        assert found["auc"] == pytest.approx(roc_auc_score([y for _, y, _ in kept], [v for v, _, _ in kept]), abs=1e-9)
    else:
        assert found["auc"] is None
    sizes, parts = [], []
    for group in {g for _, _, g in kept if g is not None}:
        of_group = [(v, y) for v, y, g in kept if g == group]
        if len({y for _, y in of_group}) == 2:
            sizes.append(len(of_group))
            parts.append(roc_auc_score([y for _, y in of_group], [v for v, _ in of_group]))
    assert found["gauc"] == (pytest.approx(np.average(parts, weights=sizes), abs=1e-9) if parts else None)


def test_a_column_of_nulls_has_no_figures() -> None:
    assert figures_of((pa.nulls(3), [0, 1, 0]))["baselines"]["b"] == {
        "auc": None,
        "gauc": None,
        "rows": 0,
        "null_rows": 3,
    }


@pytest.mark.parametrize(
    "column",
    [pa.array(["1"]), pa.array(["1"]).dictionary_encode(), pa.array([[1]]), pa.array([0], pa.timestamp("us"))],
)
def test_what_holds_no_numbers_is_refused(column: pa.Array) -> None:
    with pytest.raises(DataError, match=r"^column b: holds .*; evaluate.baseline_columns rank rows by numbers$"):
        baseline_numbers("b", column)

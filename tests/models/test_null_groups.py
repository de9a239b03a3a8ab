"""Rows whose group is null belong to no group: GAUC leaves them out, and they are counted and said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from embtables.inputs.batch import Batch, JaggedIds
from embtables.models.figures import PointwiseFigures, group_ids
from embtables.pipelines.config import Evaluate
from embtables.pipelines.training.figures.odd_figures import odd_figures

# In group 7 scores are in order, among the null rows and among those of group 0 they are the wrong way round.
SCORES = [0.1, 0.9, 0.9, 0.1, 0.9, 0.1]
LABELS = [0, 1, 0, 1, 0, 1]


def figures_of(groups: pa.Array, weights: Sequence[float] | None = None) -> dict[str, Any]:
    figures = PointwiseFigures(["y"], Evaluate(group_column="g"), lambda scores: scores)
    n = len(groups)
    ids = JaggedIds((), torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64), n, None)
    labels = torch.tensor(LABELS[:n], dtype=torch.float32).reshape(-1, 1)
    batch = Batch(ids, torch.empty(n, 0), labels, None if weights is None else torch.tensor(weights), None)
    figures.update(figures.judged(torch.tensor(SCORES[:n]).reshape(-1, 1), batch, pa.table({"g": groups})))
    found: dict[str, Any] = figures.compute()
    return found


@pytest.mark.parametrize("weights", [None, [1.0, 1.0, 5.0, 5.0, 1.0, 1.0]])
def test_rows_without_a_group_are_left_out_and_counted(weights: list[float] | None) -> None:
    found = figures_of(pa.array([7, 7, None, None, 7, 7]), weights)
    alone = figures_of(pa.array([7, 7, 8, None, 7, 7]), weights)
    assert found["null_group_rows"] == 2
    assert alone["null_group_rows"] == 1
    assert found["gauc"] == alone["gauc"] == pytest.approx(0.5)
    assert found["rows"] == 6  # the other figures are of all rows


def test_nulls_are_no_part_of_group_0_and_no_group_of_their_own() -> None:
    assert figures_of(pa.array([7, 7, None, None, 0, 0]))["gauc"] == pytest.approx(0.5)  # of 1.0 and 0.0
    assert figures_of(pa.array([7, 7, None, None]))["gauc"] == 1.0
    assert figures_of(pa.array([0, 0, None, None]))["gauc"] == 1.0


def test_a_column_of_nulls_gives_no_gauc() -> None:
    found = figures_of(pa.nulls(4))
    assert (found["gauc"], found["null_group_rows"]) == (None, 4)


def test_every_integer_is_a_group() -> None:
    least = np.iinfo(np.int64).min
    found = figures_of(pa.array([least, least, 7, 7, least, least]))
    assert (found["null_group_rows"], found["gauc"]) == (0, pytest.approx((0.5 * 4 + 0.0 * 2) / 6))
    assert len(set(group_ids("g", pa.chunked_array([pa.array([least, 0, None, 7])])).tolist())) == 4


def test_it_is_said() -> None:
    figures = figures_of(pa.array([7, 7, None, None, 0, 0]))
    (said,) = [text for text in odd_figures(figures, "test") if "group" in text]
    assert said.startswith("2 of 6 rows of the test part have no group, because evaluate.group_column is null there")
    assert not [text for text in odd_figures(figures_of(pa.array([7, 7, 0, 0])), "test") if "group" in text]

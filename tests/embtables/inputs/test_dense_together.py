"""Dense columns of few rows are transformed together: the same bits and the same faults as one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embtables import DenseColumn, Feature, FeatureTransform, FittedTransforms, FixedTable, Label, Schema, Sgd
from embtables.errors import DataError
from embtables.inputs import features

TRANSFORMS: list[tuple[Any, ...]] = [(), ("log1p",), ("standardise",), ("log1p", "standardise"), ("quantile",)]
ITEM = FixedTable(name="item", dim=8, num_rows=100, optimizer=Sgd(learning_rate=0.1))
VALUES = st.one_of(
    st.floats(-0.9, 1e6), st.floats(width=64), st.sampled_from([-1.0, 0.0, -0.0, 1e38, 1e39, 1e300, float("nan")])
)


@st.composite
def columns(draw: st.DrawFn) -> tuple[FeatureTransform, pa.Table]:
    """A few columns, mostly without a fault, and transforms of them."""
    kinds, rows = draw(st.lists(st.sampled_from(TRANSFORMS), min_size=1, max_size=6)), draw(st.integers(1, 6))
    values = draw(st.sampled_from([st.floats(-0.9, 1e6), st.floats(-0.9, 1e6), VALUES]))
    names = [f"d{place}" for place in range(len(kinds))]
    dense = tuple(DenseColumn(column=name, transforms=kind) for name, kind in zip(names, kinds, strict=True))
    schema = Schema(
        tables=(ITEM,), features=(Feature(name="item", table="item"),), labels=(Label(column="y"),), dense=dense
    )
    moments = {
        d.column: draw(st.tuples(st.floats(-5, 5), st.floats(0.01, 1e3)))
        for d in dense
        if "standardise" in d.transforms
    }
    quantiles = {d.column: (0.0, 1.0, 2.0) for d in dense if "quantile" in d.transforms}
    table = {"item": pa.array(range(rows))}
    for name in names:
        of_column = draw(st.lists(values, min_size=rows, max_size=rows))
        table[name] = pa.array(of_column, draw(st.sampled_from([pa.float64(), pa.float64(), pa.float32()])))
    return FeatureTransform.for_scoring(schema, FittedTransforms(moments, quantiles)), pa.table(table)


def dense_of(transform: FeatureTransform, table: pa.Table) -> Any:
    try:
        return transform.convert(table).dense.tobytes()
    except DataError as error:
        return error.message, error.path, getattr(error, "rows", np.empty(0)).tolist()


@given(drawn=columns())
def test_columns_taken_together_have_the_bits_and_faults_of_each_alone(
    drawn: tuple[FeatureTransform, pa.Table],
) -> None:
    transform, table = drawn
    together = dense_of(transform, table)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "_FEW_ROWS", 0)
        assert dense_of(transform, table) == together

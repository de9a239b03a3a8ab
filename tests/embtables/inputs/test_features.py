"""The features stage by role: what training reads of a row, and what scoring does without."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
import torch

from embtables import CollisionlessTable, Feature, FeatureTransform, Schema
from embtables.errors import ConfigError, DataError
from embtables.inputs.features import FittedTransforms
from embtables.inputs.transforms import TransformsContent
from embtables.schema import DenseColumn, EventTime, Label, Sgd, validate

TABLE = CollisionlessTable(name="t", dim=4, optimizer=Sgd(learning_rate=0.1), ttl_seconds=60)
SCHEMA = Schema(
    tables=(TABLE,),
    features=(Feature(name="item", table="t"), Feature(name="tags", table="t", weights_column="tag_weights")),
    dense=(DenseColumn(column="price", transforms=("log1p",)),),
    labels=(Label(column="clicked"),),
    sample_weight="weight",
    event_time=EventTime(column="time", unit="s"),
)
READ: dict[str, Any] = {
    "item": ["a", "b", None],
    "tags": [[1, 2], [], [3]],
    "tag_weights": [[0.5, 1.0], [], [2.0]],
    "price": [1.0, 2.0, 3.0],
}
BESIDE: dict[str, Any] = {"clicked": [0, 1, 1], "weight": [1.0, 2.0, 3.0], "time": [10, 11, 12]}


def test_scoring_needs_features_and_dense_columns_alone() -> None:
    scoring = FeatureTransform.for_scoring(SCHEMA, FittedTransforms())
    assert set(scoring.columns) == set(READ)
    batch = scoring.batch(pa.table(READ))
    assert (batch.num_rows, batch.labels.shape, batch.weight, batch.event_time_us) == (3, (3, 0), None, None)
    # What the log has beside them is not looked at, whatever it holds.
    strange = {"clicked": ["?", "?", "?"], "weight": [-1.0, -1.0, -1.0], "time": [None, None, None]}
    assert torch.equal(scoring.batch(pa.table({**READ, **strange})).dense, batch.dense)
    assert scoring.empty().labels.shape == (0, 0)


def test_both_roles_convert_features_alike() -> None:
    table = pa.table({**READ, **BESIDE})
    scoring = FeatureTransform.for_scoring(SCHEMA, FittedTransforms()).batch(table)
    training = FeatureTransform.for_training(SCHEMA, FittedTransforms()).batch(table)
    assert torch.equal(scoring.dense, training.dense)
    for what in ("values", "lengths", "weights"):
        assert torch.equal(getattr(scoring.ids, what), getattr(training.ids, what))
    assert training.labels.tolist() == [[0.0], [1.0], [1.0]]
    assert training.weight is not None
    assert training.weight.tolist() == [1.0, 2.0, 3.0]
    assert training.event_time_us is not None
    assert training.event_time_us.tolist() == [10_000_000, 11_000_000, 12_000_000]


@pytest.mark.parametrize("missing", BESIDE)
def test_training_needs_labels_weight_and_time(missing: str) -> None:
    table = pa.table({**READ, **BESIDE}).drop_columns([missing])
    with pytest.raises(DataError, match=f"column {missing}: is missing"):
        FeatureTransform.for_training(SCHEMA, FittedTransforms()).convert(table)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"moments": {"price": [float("nan"), 1.0]}}, "moments.price.0: Input should be a finite number"),
        ({"moments": {"price": [0.0, float("inf")]}}, "moments.price.1: Input should be a finite number"),
        ({"moments": {"price": [0.0, -1.0]}}, "moments.price.1: Input should be greater than 0"),
        ({"moments": {"price": [0.0]}}, "moments.price.1: Field required"),
        ({"quantiles": {"price": [0.0, float("inf")]}}, "quantiles.price.1: Input should be a finite number"),
        ({"quantiles": {"price": [1.0, 0.0]}}, "quantiles.price: the values do not ascend"),
        ({"buckets": {"f": [1.0, 1.0]}}, "buckets.f: a boundary is not above the one before"),
        ({"buckets": {"f": "12"}}, "buckets.f: Input should be a valid tuple"),
        ({"means": {}}, "unknown key 'means'"),
    ],
)
def test_transforms_that_nobody_fitted_are_refused(content: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError) as raised:
        validate(TransformsContent, content)
    assert text in str(raised.value)


def test_transforms_belong_to_a_schema() -> None:
    dense = (DenseColumn(column="a", transforms=("standardise",)), DenseColumn(column="b", transforms=("quantile",)))
    schema = SCHEMA.model_copy(
        update={"dense": dense, "features": (Feature(name="f", table="t", num_buckets=3), *SCHEMA.features)}
    )
    fitted = {"moments": {"a": [0.0, 1.0]}, "quantiles": {"b": [0.0, 1.0]}, "buckets": {"f": [1.0, 2.0]}}
    validate(TransformsContent, fitted).check(schema)
    for change, text in (
        ({"moments": {}}, "moments.a: is missing"),
        ({"quantiles": {"b": [], "c": []}}, "quantiles.c: nothing in the schema has it"),
        ({"buckets": {"f": [1.0, 2.0, 3.0]}}, "buckets.f: 3 buckets have at most 2 boundaries between them"),
    ):
        with pytest.raises(ValueError, match=text):
            validate(TransformsContent, {**fitted, **change}).check(schema)

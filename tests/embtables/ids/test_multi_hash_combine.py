"""The `combine` of multi_hash: in configurations, in what a version records, in tables of every store, in models."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from embtables import Feature, FixedTable, Label, Schema, Tables
from embtables.errors import ConfigError
from embtables.ids import Combine, make_encoder, width_of
from embtables.inputs.batch import JaggedIds
from embtables.models.build import build_model, features_of, tables_of
from embtables.models.registry import MODELS
from embtables.schema import Hash, MultiHash, Normal, Sgd
from embtables.state.format.manifest import hash_of

COMBINES = get_args(Combine)
ITEM = FixedTable(name="item", dim=4, num_rows=97, optimizer=Sgd(learning_rate=0.5), initializer=Normal(std=1.0))
OTHER = ITEM.model_copy(update={"name": "other"})


def oracle(weight: Tensor, config: MultiHash, ids: list[int]) -> Tensor:
    """Vectors of ids one by one, by Python's own arithmetic over rows."""
    keys = make_encoder(config, ITEM.num_rows).encode(np.array(ids)).reshape(len(ids), config.num_hashes)
    found = []
    for of_id in keys.tolist():
        rows = [weight[key].tolist() for key in of_id]
        if config.combine == "concat":
            found.append([value for row in rows for value in row])
            continue
        columns = zip(*rows, strict=True)
        how = {"sum": sum, "mean": lambda c: sum(c) / len(c), "product": np.prod}[config.combine]
        found.append([how(column) for column in columns])
    return torch.tensor(found, dtype=torch.float32)


@pytest.mark.parametrize("store", ["host", "reference", "fbgemm"])
@pytest.mark.parametrize("combine", COMBINES)
def test_vectors_are_those_of_plain_arithmetic(combine: Combine, store: Any) -> None:
    config = MultiHash(num_hashes=3, combine=combine)
    feature = Feature(name="f", table="item", encoder=config)
    tables = Tables([ITEM], [feature], seed=1, row_store=store)
    ids = [0, 5, -7, 2**62]
    expected = oracle(tables.weight("item"), config, ids)
    assert expected.shape == (4, width_of(feature, [ITEM])) == (4, tables.features[0].dim)
    torch.testing.assert_close(tables.get("item", torch.tensor(ids)), expected)


def test_what_is_written_without_it_stays_as_it_was() -> None:
    """By builds that did not know it: text, and hash of the schema."""
    assert MultiHash(num_hashes=2).model_dump(mode="json") == {"kind": "multi_hash", "num_hashes": 2, "seed": 0}
    assert MultiHash.model_validate({"kind": "multi_hash", "num_hashes": 2, "seed": 0}).combine == "sum"
    schemas = [
        Schema(tables=(ITEM,), features=(Feature(name="f", table="item", encoder=MultiHash(combine=how)),))
        for how in COMBINES
    ]
    written = [schema.model_dump(mode="json") for schema in schemas]
    assert written[0]["features"][0]["encoder"] == {"kind": "multi_hash", "num_hashes": 2, "seed": 0}
    assert len({hash_of(each) for each in written}) == len(COMBINES)
    assert [Schema.model_validate(each) for each in written] == schemas
    meanings = [make_encoder(MultiHash(combine=how), 97).meaning() for how in COMBINES]
    assert [meaning["combine"] for meaning in meanings] == list(COMBINES)


def test_an_unknown_way_is_refused() -> None:
    with pytest.raises(ValueError, match="'sum', 'mean', 'concat' or 'product'"):
        MultiHash.model_validate({"kind": "multi_hash", "combine": "max"})


def model_over(kind: str, *encoders: Any) -> torch.nn.Module:
    features = (
        Feature(name="a", table="item", encoder=encoders[0]),
        Feature(name="b", table="other", encoder=encoders[1]),
    )
    schema = Schema(tables=(ITEM, OTHER), features=features, labels=(Label(column="y"),))
    config = MODELS[kind].model_validate({"kind": kind})
    tables = Tables(tables_of(schema, config), features_of(schema, config), seed=0)
    return build_model(schema, config, tables)


@pytest.mark.parametrize("kind", ["dcnv2", "fm", "deepfm", "lr"])
@pytest.mark.parametrize("combine", COMBINES)
def test_every_model_takes_it_where_all_features_are_as_wide(kind: str, combine: Combine) -> None:
    wide = MultiHash(combine=combine)
    model = model_over(kind, wide, wide)
    logits = model(JaggedIds.of({"a": [[1], [2, 3]], "b": [[4], []]}), torch.empty(2, 0))
    assert logits.shape == (2, 1)
    logits.sum().backward()


def test_a_model_of_one_dimension_says_why_it_refuses_wider_vectors() -> None:
    for kind in ("fm", "deepfm"):
        message = r"received 8 for feature 'a' and 4 for 'b'; .* concatenated .* another way"
        with pytest.raises(ConfigError, match=message):
            model_over(kind, MultiHash(combine="concat"), Hash())
    for kind in ("dcnv2", "lr"):
        model_over(kind, MultiHash(combine="concat"), Hash())

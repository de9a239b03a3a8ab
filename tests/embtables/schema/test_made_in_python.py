"""Schema models that are made in Python: the errors of a file, with the path to each wrong value."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

import embtables as et
from embtables.errors import ConfigError
from embtables.schema import LogConfig, to_yaml, validate

SGD = et.Sgd(learning_rate=0.1)
TABLE = et.FixedTable(name="t", dim=2, num_rows=10, optimizer=SGD)
WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "missing": (lambda: et.Feature(name="f"), "Feature.table: Field required"),
    "unknown": (lambda: et.Feature(name="f", tabel="t"), "Feature: unknown key 'tabel'; did you mean 'table'?"),
    "two": (
        lambda: et.FixedTable(name="t", dim="a", num_rows=None, optimizer=SGD),
        "2 values are wrong:\n  FixedTable.dim: Input should be a valid integer",
    ),
    "nested": (
        lambda: et.Schema(tables=[{"name": "t", "dim": 0, "optimizer": SGD}], features=[]),
        "Schema.tables.0.dim: Input should be greater than or equal to 1 (received 0)",
    ),
    "kind": (
        lambda: et.FixedTable(name="t", dim=2, num_rows=10, optimizer={"kind": "sdg"}),
        "FixedTable.optimizer: 'kind' must be one of: sgd",
    ),
    "together": (
        lambda: et.Schema(tables=[TABLE], features=[et.Feature(name="f", table="u")]),
        "Schema: feature 'f' names table 'u', which is not among: ['t']",
    ),
    "nan": (lambda: et.Sgd(learning_rate=float("nan")), "Sgd.learning_rate: Input should be"),
    "condition": (lambda: LogConfig(path="x", where=["a"]), "LogConfig.where.0: write '<column> <op> <value>'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_the_error_has_the_path_to_the_value(case: str) -> None:
    make, text = WRONG[case]
    with pytest.raises(ConfigError) as raised:
        make()
    assert str(raised.value).startswith(text)
    assert isinstance(raised.value.__cause__, ValidationError)


def test_pydantics_own_way_has_pydantics_error() -> None:
    with pytest.raises(ValidationError):
        et.Feature.model_validate({"name": "f"})
    with pytest.raises(ConfigError, match=r"^features\.0\.table: Field required$"):
        validate(et.Schema, {"tables": [TABLE], "features": [{"name": "f"}]})


def test_models_nest_and_come_back() -> None:
    schema = et.Schema(tables=[TABLE], features=[{"name": "f", "table": "t", "encoder": {"kind": "hash", "seed": 3}}])
    assert schema.features[0].encoder == et.Hash(seed=3)
    for same in (copy.deepcopy(schema), pickle.loads(pickle.dumps(schema)), schema.model_copy()):
        assert same == schema
    assert validate(et.Schema, et.Schema.model_validate(schema.model_dump()).model_dump()) == schema
    assert "seed: 3" in to_yaml(schema)

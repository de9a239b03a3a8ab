"""A model from outside the package: registered, configured, trained, resumed and refused like the package's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq
import pytest
import torch
from pydantic import PositiveInt
from torch import Tensor, nn

import embtables
from embtables.errors import ConfigError
from embtables.inputs.batch import JaggedIds
from embtables.models.registry import ModelInputs, forget_model
from embtables.pipelines.config import RunConfig
from embtables.pipelines.run_dir import RunDir
from embtables.pipelines.trained.load_run import load_run
from embtables.pipelines.trained.predict import predict
from embtables.pipelines.training.train import resume, train
from embtables.schema import json_schema, validate
from tests.pipelines.conftest import log_dir, make_config

__all__ = ["log_dir", "make_config"]
Make = Callable[..., RunConfig]


class LastTagConfig(embtables.ModelOptions):
    kind: Literal["last_tag"] = "last_tag"
    width: PositiveInt = 8


class LastTag(nn.Module):
    """Pooled features, the last id of each sequence, and first-order weights: all the views there are."""

    def __init__(self, config: LastTagConfig, inputs: ModelInputs) -> None:
        super().__init__()
        self.pooled, self.sequences = inputs.need_pooled_first_order(), inputs.need_sequence()
        width = sum(self.pooled.embedding_dims) + sum(self.sequences.embedding_dims)
        hidden = (nn.Linear(width, config.width), nn.BatchNorm1d(config.width), nn.ReLU())
        self.out = nn.Sequential(*hidden, nn.Linear(config.width, inputs.num_labels))
        self.scale = nn.Parameter(torch.ones(()))  # as the count of the batch norm, a scalar

    def forward(self, ids: JaggedIds, dense: Tensor) -> Tensor:
        last = []
        for rows in self.sequences(ids).values():
            none = rows.values.new_zeros(1, rows.values.shape[1])
            ends = torch.where(rows.lengths > 0, rows.lengths.cumsum(0), 0)
            last.append(torch.cat([none, rows.values])[ends])
        pooled, first_order = self.pooled(ids)
        logits: Tensor = self.out(torch.cat([pooled, *last], dim=1))
        return self.scale * logits + first_order.sum(dim=1, keepdim=True)


SPEC = embtables.ModelSpec(LastTagConfig, frozenset({"pooled", "sequence", "first_order"}), LastTag)


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    embtables.register_model(SPEC)
    yield
    forget_model("last_tag")


def config_of(make: Make, **more: Any) -> RunConfig:
    return make(**{"model": {"kind": "last_tag"}, "features.2.pooling": "none", "train.epochs": 3, **more})


def test_it_trains_learns_resumes_and_predicts(make_config: Make, log_dir: Path, tmp_path: Path) -> None:
    report = train(config_of(make_config), shown=False)
    assert report["model"] == "last_tag"
    assert report["auc"] > 0.7
    assert {"user", "item", "linear.user", "linear.item"} == set(report["tables"])
    run = RunDir.open(Path(report["run_dir"]))
    assert resume(run, ("train.epochs=4",), shown=False)["epochs"] == 4
    predict(load_run(run), str(log_dir), tmp_path / "scores.parquet", shown=False)
    assert pq.read_table(tmp_path / "scores.parquet").num_rows == 1800


def test_its_options_are_checked_and_documented(make_config: Make) -> None:
    with pytest.raises(ConfigError, match=r"model\.width: Input should be greater than 0"):
        make_config(**{"model": {"kind": "last_tag", "width": 0}})
    assert '"last_tag"' in json_schema(RunConfig)


def test_views_that_no_feature_goes_to_are_reported(make_config: Make) -> None:
    with pytest.raises(ConfigError, match="needs sequences; set pooling: none"):
        train(make_config(**{"model": {"kind": "last_tag"}}), shown=False)


def test_a_feature_that_no_view_takes_is_refused(make_config: Make) -> None:
    with pytest.raises(ConfigError, match="feature tags: model 'dcnv2' takes pooled features"):
        train(make_config(**{"features.2.pooling": "none"}), shown=False)


def test_a_name_is_taken_once() -> None:
    class Other(embtables.ModelOptions):
        kind: Literal["last_tag"] = "last_tag"

    other = embtables.ModelSpec(Other, frozenset({"pooled"}), LastTag)
    with pytest.raises(
        ConfigError, match=r"model 'last_tag' is already .*\.LastTagConfig; give .*\.Other another name"
    ):
        embtables.register_model(other)
    forget_model("last_tag")
    with pytest.raises(ConfigError, match="'kind' must be one of: lr, fm, deepfm, dcnv2; the code of a model of your"):
        validate(RunConfig, {"model": {"kind": "last_tag"}})
    with pytest.raises(ConfigError, match="did you mean 'dcnv2'"):
        validate(RunConfig, {"model": {"kind": "dcn_v2"}})


def test_the_same_code_again_replaces_what_it_was(make_config: Make) -> None:
    before = config_of(make_config)
    embtables.register_model(SPEC)
    assert config_of(make_config) == before

"""`embtables export RUN --onnx FILE`: the file computes what the model computes, from what the scorer looks up."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor, nn

from embtables import ModelInputs, ModelOptions, ModelSpec, Scorer, register_model
from embtables.inputs.batch import JaggedIds
from embtables.inputs.features import FeatureTransform
from embtables.lookup.views import PooledView
from embtables.models.onnx_export import session_of
from embtables.models.registry import forget_model
from embtables.pipelines.config import RunConfig
from embtables.pipelines.trained import export_onnx
from embtables.pipelines.training.train import train
from tests.pipelines.conftest import log_dir, make_config

__all__ = ["log_dir", "make_config"]
Make = Callable[..., RunConfig]
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(make_config: Make) -> Path:
    return Path(train(make_config(), shown=False)["run_dir"])


@pytest.mark.slow
def test_the_file_computes_what_the_scorer_does(run: Path, log_dir: Path, tmp_path: Path, command: Command) -> None:
    file = tmp_path / "dense.onnx"
    status, out, _ = command("export", run, "--onnx", file, "--version", "last", "--json")
    assert status == 0
    report = json.loads(out)
    assert report["inputs"] == {"embedding/user": 8, "embedding/item": 8, "embedding/tags": 8, "dense": 1}
    assert report["greatest_error"] <= 1e-5
    scorer = Scorer.from_version(run, "last")
    rows = pq.read_table(log_dir).select(["user", "item", "tags", "price"]).slice(0, 37)
    batch = FeatureTransform.for_scoring(scorer.schema, scorer.fitted).batch(rows)
    view = next(part for part in scorer.model.modules() if isinstance(part, PooledView))
    view.eval()
    with torch.no_grad():
        parts = torch.split(view(batch.ids), view.embedding_dims, dim=1)
    names = [f"embedding/{name}" for name in view.embedding_names]
    feed = {name: part.contiguous().numpy() for name, part in zip(names, parts, strict=True)}
    model = file.read_bytes()
    logits = session_of(model).run(None, {**feed, "dense": batch.dense.numpy()})[0]
    assert np.abs(logits - scorer.outputs(batch).numpy()).max() <= 1e-5
    said = {entry.key: entry.value for entry in onnx.load_model_from_string(model).metadata_props}
    assert json.loads(said["embtables.dense"]) == ["price"]
    assert json.loads(said["embtables.labels"]) == ["label"]
    assert said["embtables.version"] == report["version"]
    for pin in (run / "checkpoints" / "pins").iterdir():  # a run that was never evaluated has no best version
        pin.unlink()
    for folder in (run, run / "checkpoints"):
        status, out, _ = command("export", folder, "--onnx", tmp_path / "again.onnx", "--json")
        assert (status, json.loads(out)["version"]) == (0, report["version"])
        assert (tmp_path / "again.onnx").read_bytes() == model
    status, _, err = command("export", tmp_path, "--onnx", file)
    assert (status, "has no versions" in err) == (2, True)
    status, _, err = command("export", run, "--onnx", tmp_path / "no" / "dense.onnx")
    assert (status, "cannot be written: No such file or directory" in err) == (1, True)


def test_a_file_that_differs_is_not_written(
    run: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_onnx, "onnx_bytes", lambda net, metadata: b"")
    monkeypatch.setattr(export_onnx, "_greatest_error", lambda net, model: 1e-3)
    status, _, err = command("export", run, "--onnx", tmp_path / "dense.onnx")
    assert status == 2
    assert "differ from torch's by 0.001" in err
    assert not list(tmp_path.glob("*.onnx*"))


def test_without_the_packages_it_says_what_to_install(
    run: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    status, _, err = command("export", run, "--onnx", tmp_path / "dense.onnx")
    assert status == 2
    assert "pip install 'embtables[onnx]'" in " ".join(err.split())


class OddConfig(ModelOptions):
    kind: Literal["odd"] = "odd"
    reads_ids: bool = False


class Odd(nn.Module):
    """Logits that no dense net gives: by the number of ids; or by numbers that torch draws as ONNX does not."""

    def __init__(self, config: OddConfig, inputs: ModelInputs) -> None:
        super().__init__()
        self.config, self.embeddings = config, inputs.need_pooled()
        self.out = nn.Linear(sum(self.embeddings.embedding_dims), 1)

    def forward(self, ids: JaggedIds, dense: Tensor) -> Tensor:
        logits: Tensor = self.out(self.embeddings(ids))
        if self.config.reads_ids:
            return logits + ids["tags"].lengths.float()[:, None]
        return logits + torch.linalg.svdvals(logits).sum()


@pytest.fixture
def odd_model() -> Iterator[None]:
    register_model(ModelSpec(OddConfig, frozenset({"pooled"}), Odd))
    yield
    forget_model("odd")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"reads_ids": True}, "the model uses ids beside its views"),
        pytest.param({}, "cannot be exported to ONNX", marks=pytest.mark.slow),
    ],
)
@pytest.mark.usefixtures("odd_model")
def test_a_model_that_is_no_dense_net_is_refused(
    make_config: Make, tmp_path: Path, command: Command, options: dict[str, Any], said: str
) -> None:
    config = make_config(model={"kind": "odd", **options}, **{"train.epochs": 1})
    run = Path(train(config, shown=False)["run_dir"])
    status, _, err = command("export", run, "--onnx", tmp_path / "dense.onnx")
    assert status == 2
    assert said in " ".join(err.split())
    assert not list(tmp_path.glob("*.onnx*"))

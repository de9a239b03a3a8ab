"""`Scorer`: a version alone gives the scores and embeddings that the run gave, and nothing of it changes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from embtables import Scorer
from embtables.errors import ConfigError, DataError, StateError
from embtables.models.served import served_tables
from embtables.models.version_content import scoring_content
from embtables.pipelines.config import RunConfig
from embtables.pipelines.run_dir import RunDir
from embtables.pipelines.trained.load_run import load_run
from embtables.pipelines.trained.predict import predict
from embtables.pipelines.training.train import train
from embtables.state.folder.version_folder import StateFolder
from embtables.state.read.find import find
from embtables.state.read.serve import load_served
from tests.contents import flat, same
from tests.pipelines.conftest import log_dir, make_config

__all__ = ["log_dir", "make_config"]
Make = Callable[..., RunConfig]
INPUTS = ["user", "item", "tags", "price"]


@pytest.fixture
def run(make_config: Make) -> RunDir:
    # A version needs more than parameters, and rows that changed without being looked up.
    changes: dict[str, Any] = {"model.normalisation": "batch_norm", "train.checkpoint_every_steps": 3}
    changes["tables.0.optimizer.weight_decay"] = {"kind": "dense", "rate": 0.5}
    config = make_config(**changes)
    return RunDir.open(Path(train(config, shown=False)["run_dir"]))


def test_a_version_alone_scores_as_its_run_predicts(run: RunDir, log_dir: Path, tmp_path: Path) -> None:
    predict(load_run(run), str(log_dir), tmp_path / "scores.parquet", shown=False)
    predicted = pq.read_table(tmp_path / "scores.parquet").column("score").to_numpy()
    scorer = Scorer.from_version(run.path)
    inputs = pq.read_table(log_dir).select(INPUTS)
    scores = scorer.score(inputs)
    assert scores.shape == (1800, 1)
    assert scores.dtype == torch.float32
    assert scores[:, 0].numpy().tolist() == predicted.tolist()
    few = scorer.score({name: inputs.column(name)[:3].to_pylist() for name in INPUTS})
    assert torch.allclose(few, scores[:3], atol=1e-6)


def test_over_served_tables_threads_score_and_embed_at_once(run: RunDir, log_dir: Path) -> None:
    state, chain = StateFolder(run.checkpoints), find(run.checkpoints, "last")
    assert len(chain) > 1

    served = served_tables(state, chain)
    version = load_served(state, chain, served)
    scorer = Scorer.of_content(scoring_content(chain[-1]), served, version.tensors, chain[-1].name)
    trained, inputs = Scorer.from_version(run.path, "last"), pq.read_table(log_dir).select(INPUTS)
    items = [f"item-{number}" for number in range(50)]

    def answer(_: int) -> tuple[torch.Tensor, torch.Tensor]:
        return scorer.score(inputs), scorer.embed("item", items)

    with ThreadPoolExecutor(4) as threads:
        for scores, vectors in threads.map(answer, range(20)):
            assert torch.equal(vectors, trained.embed("item", items))
            assert torch.equal(scores, trained.score(inputs))
    with pytest.raises(StateError, match=f"version {chain[-1].name}: dense tensor '.*' is missing"):
        Scorer.of_content(scoring_content(chain[-1]), served, {}, chain[-1].name)
    with pytest.raises(StateError, match="table user: holds rows already"):
        load_served(state, chain, served)


def test_a_version_is_named_best_last_or_by_its_name(run: RunDir, log_dir: Path) -> None:
    inputs = pq.read_table(log_dir).select(INPUTS)
    scores = {name: Scorer.from_version(run.checkpoints, name).score(inputs) for name in ("last", "resume-1")}
    assert not torch.equal(scores["last"], scores["resume-1"])
    with pytest.raises(StateError, match="there is no version 'resume-99'; there are: resume-1"):
        Scorer.from_version(run.path, "resume-99")
    with pytest.raises(StateError, match="named best, last or like resume-12, received 'newest'"):
        Scorer.from_version(run.path, "newest")


def test_embeddings_are_the_tables_rows(run: RunDir) -> None:
    scorer = Scorer.from_version(run.path)
    users = torch.tensor([3, 0, 3])
    assert torch.equal(scorer.embed("user", users), scorer.tables.weight("user")[users])
    assert torch.equal(scorer.embed("user", [3, 0, 3]), scorer.embed("user", users.numpy()))
    assert torch.equal(scorer.embed("item", ["item-1", "item-2"])[1:], scorer.embed("item", pa.array(["item-2"])))
    with pytest.raises(ConfigError, match="feature usr: there is no such feature; there are: user, item, tags"):
        scorer.embed("usr", [1])


def test_scoring_changes_nothing(run: RunDir, log_dir: Path) -> None:
    scorer = Scorer.from_version(run.path)
    before, random = flat(scorer.tables), torch.get_rng_state()
    scorer.score(pq.read_table(log_dir).select(INPUTS))
    scorer.embed("item", ["never seen"])
    assert same(before, flat(scorer.tables))
    assert torch.equal(random, torch.get_rng_state())
    Scorer.from_version(run.path)
    assert torch.equal(random, torch.get_rng_state())


def test_a_missing_column_is_named(run: RunDir) -> None:
    with pytest.raises(DataError, match="column item: is missing"):
        Scorer.from_version(run.path).score({"user": [1], "tags": [[1]], "price": [2.0]})


def test_a_model_without_embeddings_has_none_to_give(make_config: Make) -> None:
    report = train(make_config(**{"model": {"kind": "lr"}, "train.epochs": 1}), shown=False)
    scorer = Scorer.from_version(report["run_dir"])
    with pytest.raises(ConfigError, match="no embeddings, only first-order weights"):
        scorer.embed("user", [1])


def test_scores_are_corrected_for_sampled_negatives(run: RunDir, log_dir: Path) -> None:
    inputs = pq.read_table(log_dir).select([*INPUTS, "time"])
    plain = Scorer.from_version(run.path).score(inputs)
    corrected = load_run(run, overrides=("evaluate.negative_sampling_rate=0.1",)).scorer.score(inputs)
    assert torch.allclose(corrected, plain / (plain + (1 - plain) / 0.1), atol=1e-6)

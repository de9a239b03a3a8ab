"""Models that are no dense net over pooled embeddings are asked with whole rows, in the same tiles."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from embtables import ModelInputs, ModelOptions, ModelSpec, register_model
from embtables.inputs.batch import JaggedIds
from embtables.models.registry import forget_model
from embtables.serving import wire
from embtables.serving.scoring.request_scorer import Answer, RequestScorer
from embtables.serving.scoring.whole_model import WholeModelScorer
from tests.serving.scoring.served_for_tests import (
    ITEMS,
    MODELS,
    item_name,
    rows_table,
    served_version,
    side_tables,
    trained_run,
)
from tests.serving.scoring.test_request_scorer import CONTEXT, answer, check


class CountsConfig(ModelOptions):
    kind: Literal["counts"] = "counts"


class Counts(nn.Module):
    """Pooled embeddings, and how many ids a feature has, which no view says."""

    def __init__(self, config: CountsConfig, inputs: ModelInputs) -> None:
        super().__init__()
        self.embeddings = inputs.need_pooled()
        self.out = nn.Linear(sum(self.embeddings.embedding_dims) + inputs.num_dense + 1, inputs.num_labels)

    def forward(self, ids: JaggedIds, dense: Tensor) -> Tensor:
        counts = ids["near"].lengths.float()[:, None]
        found: Tensor = self.out(torch.cat([self.embeddings(ids), dense, counts], dim=1))
        return found


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RequestScorer]:
    register_model(ModelSpec(CountsConfig, frozenset({"pooled"}), Counts))
    MODELS["counts"] = {"kind": "counts"}
    run: Path = trained_run(tmp_path_factory.mktemp("counts"), "counts")
    yield RequestScorer(served_version(run, side_tables(), "item"))
    del MODELS["counts"]
    forget_model("counts")


def test_its_scores_are_those_of_whole_rows_alone_and_in_company(scorer: RequestScorer) -> None:
    assert isinstance(scorer._rows, WholeModelScorer)
    scorer.warm()
    assert (scorer.engine.mode, scorer.engine.name) == ("exact", "torch")
    names = [item_name(n) for n in range(ITEMS)]
    requests = [
        wire.ScoreRequest(context=CONTEXT, candidates=[*names, *names, *names, "no such item"]),
        wire.ScoreRequest(context={**CONTEXT, "near": [], "near_weight": []}, candidates=names[:3]),
        wire.ScoreRequest(context=CONTEXT, candidates=[{"item": "item-1", "title": "red"}, {"item": "item-2"}]),
        rows_table(150),
        wire.ScoreRequest(context=CONTEXT, candidates=[]),
    ]
    for request in requests[:-1]:
        check(scorer, request)
    for one, request in zip(scorer.score_all(requests), requests, strict=True):
        assert isinstance(one, Answer)
        assert one.of.scores.tobytes() == answer(scorer, request).of.scores.tobytes()
    first = scorer.score_all([wire.ScoreRequest(context=CONTEXT, candidates=names[:1])])[0]
    whole = scorer.score_all([requests[0]])[0]
    assert isinstance(first, Answer)
    assert isinstance(whole, Answer)
    assert first.of.scores.tobytes() == whole.of.scores[:1].tobytes()

"""Evaluation at several ranks: the figures of one process, every row counted once, at all ranks alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from embtables.errors import DataError
from embtables.inputs.features import FittedTransforms
from embtables.pipelines.config import RunConfig
from embtables.pipelines.sources.parquet import LogPart
from embtables.pipelines.training.figures.evaluate import evaluate
from embtables.pipelines.training.learner import Learner
from embtables.shard.world import World
from tests.pipelines.conftest import open_log
from tests.shard.threads_for_tests import in_threads

Make = Callable[..., RunConfig]
FITTED = FittedTransforms({"price": (0.0, 1.0)})


def figures(config: RunConfig, part: LogPart | None, ranks: int) -> list[dict[str, Any]]:
    """What each rank reports. The learners are made one after the other, for their weights come from one generator."""
    learners = [Learner(config) for _ in range(ranks)]

    def work(world: World) -> dict[str, Any]:
        return evaluate(learners[world.rank].scorer(FITTED), config, open_log(config), part, world=world, shown=False)

    return in_threads(ranks, work)


def approximately(report: dict[str, Any]) -> dict[str, Any]:
    return {
        name: approximately(value)
        if isinstance(value, dict)
        else pytest.approx(value, rel=1e-6)
        if isinstance(value, float)
        else value
        for name, value in report.items()
    }


@pytest.mark.parametrize("ranks", [2, 3, 40])
def test_figures_are_those_of_one_process(make_config: Make, ranks: int) -> None:
    """Forty ranks share batches of thirty-two rows: some have none to score."""
    config = make_config(
        **{
            "sample_weight": "price",
            "evaluate": {
                "batch_size": 32,
                "group_column": "item",
                "baseline_columns": ["price", "row"],
                "slices": [
                    {"name": "few", "where": ["user < 3"]},
                    {"name": "cheap", "where": ["price < 1"]},
                ],
            },
        }
    )
    learner = Learner(config)
    one = evaluate(learner.scorer(FITTED), config, open_log(config), "test", shown=False)
    assert one["rows"] == open_log(config).count_rows("test")
    assert 0 < one["slices"]["few"]["rows"] < one["rows"]
    assert one["gauc"] is not None
    found = figures(config, "test", ranks)
    assert all(report == found[0] for report in found)
    assert found[0] == approximately(one)


def test_a_part_without_rows_is_reported_at_every_rank(make_config: Make) -> None:
    with pytest.raises(DataError, match="the validation part holds no rows"):
        figures(make_config(**{"data.where": ["user > 1000"]}), "validation", 2)

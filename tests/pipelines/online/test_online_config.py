"""An online section within a run: one label, scores that make up for dropped negatives and late clicks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from embtables.errors import ConfigError
from embtables.models.losses import late_positive_calibration
from embtables.models.scorer import Scorer
from embtables.models.version_content import scoring_content
from embtables.pipelines.config import RunConfig
from embtables.pipelines.run_dir import RunDir
from embtables.pipelines.trained.load_run import load_run
from embtables.pipelines.training import checkpoint
from embtables.pipelines.training.train import train

Make = Callable[..., RunConfig]
EVENTS = {"log": "folder:///events", "item": "item", "window_seconds": 600, "late_window_seconds": 600}


def test_negatives_that_are_dropped_must_be_made_up_for(make_config: Make) -> None:
    online = EVENTS | {"negative_rate": 0.25}
    with pytest.raises(ConfigError, match=r"negative_rate is 0\.25 and evaluate\.negative_sampling_rate None"):
        make_config(online={"events": online})
    with pytest.raises(ConfigError, match=r"negative_rate is None and evaluate\.negative_sampling_rate 0\.5"):
        make_config(online={"events": EVENTS}, evaluate={"negative_sampling_rate": 0.5})
    assert make_config(online={"events": online}, evaluate={"negative_sampling_rate": 0.25}).online is not None


def test_several_labels_are_refused(make_config: Make) -> None:
    with pytest.raises(ConfigError, match="one label, received 2: label, other"):
        make_config(online={"events": EVENTS}, labels=[{"column": "label"}, {"column": "other"}])


def test_a_log_that_forgets_open_impressions_is_refused(make_config: Make) -> None:
    short = EVENTS | {"log": "folder:///events?partitions=2&keep_seconds=1200"}
    with pytest.raises(ConfigError, match=r"keeps events for 1200 s, but .* after window_seconds and .*, 1,200 s"):
        make_config(online={"events": short})
    long = EVENTS | {"log": "folder:///events?partitions=2&keep_seconds=1201"}
    assert make_config(online={"events": long}).online is not None


def test_a_threshold_of_the_label_is_refused(make_config: Make) -> None:
    with pytest.raises(ConfigError, match="takes no positive_above"):
        make_config(online={"events": EVENTS}, labels=[{"column": "label", "positive_above": 3.0}])


@pytest.mark.parametrize("correction", ["calibration", "weighting"])
def test_a_version_scores_with_its_calibration(make_config: Make, correction: str) -> None:
    late = {"correction": correction, "share": 0.5}
    config = make_config(**{"online": {"events": EVENTS | {"late": late}}, "train.epochs": 1})
    run = RunDir.open(Path(train(config, shown=False)["run_dir"]))
    recorded = scoring_content(checkpoint.find(run.checkpoints, "last")[-1]).scoring.late
    rows = {"user": [1, 2], "item": ["item-1", "item-2"], "tags": [[1], [2]], "price": [2.0, 1.0]}
    served = Scorer.from_version(run.path).score(rows)
    uncorrected = load_run(run, overrides=("online=null",)).scorer.score(rows)
    if correction == "calibration":
        assert recorded == config.late
        assert served.tolist() == late_positive_calibration(uncorrected, 0.5).tolist()
    else:
        assert recorded is None
        assert served.tolist() == uncorrected.tolist()
    assert load_run(run).scorer.score(rows).tolist() == served.tolist()

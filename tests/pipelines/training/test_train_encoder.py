"""A run with an encoder from outside the package that has data: its file is needed once, when the run begins."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from embtables.errors import StateError
from embtables.pipelines.config import RunConfig
from embtables.pipelines.run_dir import RunDir
from embtables.pipelines.trained.load_run import load_run
from embtables.pipelines.training.train import resume, train
from tests.contents import flat, same
from tests.embtables.ids.encoders_for_tests import registered

Make = Callable[..., RunConfig]


@pytest.fixture(autouse=True)
def _digits() -> Iterator[None]:
    with registered():
        yield


def test_data_of_an_encoder_is_needed_once(make_config: Make, tmp_path: Path) -> None:
    order = tmp_path / "order"
    order.write_bytes(np.arange(10)[::-1].astype(np.int64).tobytes())
    encoder = {"kind": "digits", "base": 10, "num_digits": 2, "combine": "concat", "order": str(order)}
    config = make_config(**{"features.0.encoder": encoder, "train.epochs": 1, "train.checkpoint_every_steps": 4})
    run = RunDir.open(Path(train(config, shown=False)["run_dir"]))
    whole = train(make_config(**{"features.0.encoder": encoder, "train.epochs": 2}), shown=False)
    other = tmp_path / "other"
    other.write_bytes(np.arange(10).astype(np.int64).tobytes())
    changed = make_config(**{"features.0.encoder": {**encoder, "order": str(other)}})
    with pytest.raises(StateError, match=r"feature 'user' has encoder .* ids mean other keys"):
        train(changed, former=run, shown=False)
    order.unlink()

    report = resume(run, ("train.epochs=2",), shown=False)
    assert report["auc"] == whole["auc"]
    went_on, undisturbed = load_run(run, "last").scorer, load_run(RunDir.open(Path(whole["run_dir"])), "last").scorer
    assert same(flat(went_on.tables), flat(undisturbed.tables))
    assert went_on.model.embeddings.embedding_dims == [16, 8, 8]

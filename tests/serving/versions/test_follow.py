"""A server's side follows a real trainer: what answers is what the trainer has, after every delta."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from embtables.errors import ConfigError
from embtables.serving.versions.follow import Following
from embtables.serving.versions.live import Live
from embtables.state.tools.compact import compact
from tests.serving.versions.conftest import Follows
from tests.serving.versions.trainer_for_tests import START, TTL_SECONDS, Trainer, keys_of, trainer

Follow = Callable[..., Follows]


def assert_parity(version: Any, made: Trainer) -> None:
    """Rows bit for bit, and scores."""
    tables = version.scorer.tables
    for number, config in enumerate(made.tables.configs):
        keys = keys_of(made.tables, config.name)
        assert torch.equal(tables.read(config.name, keys), made.tables.rows.read(number, "weight", keys)), config.name
        assert tables.num_rows(config.name) == made.tables.stats()[config.name].rows
    rows = made.rows(64, seed=999)
    assert torch.equal(version.scorer.score(rows), made.scorer().score(rows))


def test_after_each_delta_rows_are_those_of_the_trainer(trained: Trainer, follow: Follow, tmp_path: Path) -> None:
    follows = follow(tmp_path)
    assert_parity(follows.until("serving-1"), trained)
    tables = follows.until("serving-1").scorer.tables
    for step in range(2, 8):
        if step == 4:
            trained.tables.delete("item", torch.arange(-50, 0))
        version = follows.until(trained.publish())
        assert version.name == version.row_version == f"serving-{step}"
        assert_parity(version, trained)
        assert version.scorer.tables is tables  # deltas are applied in place
    info = follows.following.info()
    assert (info.state, info.applied_versions, sum(info.rejected.values())) == ("following", 7, 0)
    assert info.applied_tombstones >= 50
    assert follows.following.why_not_ready() is None


def test_a_snapshot_comes_with_fresh_tables(trained: Trainer, follow: Follow, tmp_path: Path) -> None:
    follows = follow(tmp_path)
    former = follows.until("serving-1")
    scores, rows = former.scorer.score(trained.rows(20, seed=1)), trained.rows(20, seed=1)
    trained.writer._parent = None  # as a trainer that was started again
    version = follows.until(trained.publish())
    assert version.manifest.parent is None
    assert_parity(version, trained)
    # Requests that still have the former version are answered by it, to the bit.
    assert torch.equal(former.scorer.score(rows), scores)
    assert former.row_version == "serving-1"


def test_a_snapshot_with_the_same_content_is_not_read(trained: Trainer, follow: Follow, tmp_path: Path) -> None:
    follows = follow(tmp_path)
    follows.until("serving-1")
    trained.publish()
    tables = follows.until("serving-2").scorer.tables
    written = compact(trained.writer._holder, "serving", keep=99).version  # type: ignore[arg-type]
    assert written.same_as == trained.state.manifest("serving", 2).folder
    # It has the name of the newest version with its content, so that whoever saw that one elsewhere is answered.
    version = follows.until("serving-3")
    assert version.scorer.tables is tables
    assert follows.following.info().applied_versions == 2
    trained.writer.go_on_from([written])
    assert_parity(follows.until(trained.publish()), trained)


def test_it_starts_at_the_newest_version(trained: Trainer, follow: Follow, tmp_path: Path) -> None:
    for _ in range(3):
        trained.publish()
    follows = follow(tmp_path)
    version = follows.live.wait(60.0)
    assert version is not None
    assert version.name == "serving-4"  # none of those before was ever shown
    assert_parity(version, trained)


def test_a_row_past_its_ttl_is_cold_at_once(trained: Trainer, follow: Follow, tmp_path: Path) -> None:
    follows = follow(tmp_path)
    follows.until("serving-1")
    old = torch.from_numpy(trained.rows(40, seed=1).column("user").to_numpy().copy())
    old = old[old > 0]
    tables = follows.until("serving-1").scorer.tables
    assert tables.known("user", old).all()
    trained.now += TTL_SECONDS
    trained.train(users=1)
    trained.cut()
    assert follows.until("serving-2").scorer.tables is tables
    assert tables.now("user") > START + TTL_SECONDS
    assert not tables.known("user", old).any()
    assert not tables.get("user", old).any()  # nobody has swept them away: a cold row reads zeros
    assert tables.known("user", torch.tensor([0])).all()


def test_a_folder_may_have_no_version_yet(tmp_path: Path, follow: Follow) -> None:
    (tmp_path / "manifests").mkdir()
    follows = follow(tmp_path)
    assert follows.following.why_not_ready() == f"no version of {tmp_path} is loaded yet"
    with trainer(tmp_path) as made:
        made.publish()
        assert_parity(follows.until("serving-1"), made)


def test_a_run_without_versions_for_servers_is_served_at_its_best_checkpoint(tmp_path: Path, follow: Follow) -> None:
    (tmp_path / "checkpoints").mkdir()
    with trainer(tmp_path / "checkpoints", purpose="resume") as made:
        made.train()
        made.cut(pins=("best",))
        best = made.scorer().score(made.rows(20, seed=3))
        made.publish()
        follows = follow(tmp_path)
        version = follows.until("resume-1")
        assert torch.equal(version.scorer.score(made.rows(20, seed=3)), best)
        made.writer.close()
        holder = made.writer._holder
        serving = Trainer(holder)  # type: ignore[arg-type]
        serving.publish(2)
        assert_parity(follows.until("serving-1"), serving)
        serving.writer.close()


@pytest.mark.parametrize(("what", "text"), [("file", "is no folder"), ("empty", "has no versions")])
def test_what_is_no_folder_of_versions_is_refused(tmp_path: Path, what: str, text: str) -> None:
    place = tmp_path / what
    if what == "file":
        place.write_text("x")
    else:
        place.mkdir()
    with pytest.raises(ConfigError, match=f"{text}: give the folder of a run, or one with manifests/ in it"):
        Following(place, Live())


@pytest.mark.parametrize(("dtype", "error"), [("bf16", 2.0**-8), ("fp16", 2.0**-10), ("int8", 2.0**-7)])
def test_a_chain_of_rounded_weights_is_followed(tmp_path: Path, follow: Follow, dtype: str, error: float) -> None:
    with trainer(tmp_path, dtype=dtype) as made:
        made.publish(5)
        follows = follow(tmp_path)
        follows.until("serving-1")
        for _ in range(2):
            tables = follows.until(made.publish()).scorer.tables
            for number, config in enumerate(made.tables.configs):
                keys = keys_of(made.tables, config.name)
                rows, true = tables.read(config.name, keys), made.tables.rows.read(number, "weight", keys)
                assert torch.allclose(rows, true, rtol=error, atol=error * float(true.abs().max())), config.name
                assert tables.num_rows(config.name) == made.tables.stats()[config.name].rows

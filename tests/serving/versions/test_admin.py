"""What an operator asks for: pin, roll back, follow again, pause."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from embtables.errors import ConfigError
from embtables.serving.refusals import Refusal
from embtables.serving.versions.follow import Following
from embtables.serving.versions.live import Live
from embtables.state.tools.compact import compact
from tests.serving.versions.test_follow import Follow, assert_parity
from tests.serving.versions.trainer_for_tests import Trainer, data_file


def test_roll_back_and_follow_again(trained: Trainer, follow: Follow, tmp_path: Path) -> None:
    rows = trained.rows(30, seed=7)
    scores = {"serving-1": trained.scorer().score(rows)}
    for _ in range(3):
        name = trained.publish()
        scores[name] = trained.scorer().score(rows)
    follows = follow(tmp_path)
    newest = follows.until("serving-4")
    assert follows.roll_back() == "serving-3"
    for name in ("serving-3", "serving-2"):
        current = follows.live.current
        assert current is not None
        assert (current.name, current.row_version) == (name, name)
        assert torch.equal(current.scorer.score(rows), scores[name])
        if name == "serving-3":
            assert follows.roll_back() == "serving-2"
    # Requests that hold the version before the roll back go on with it, whole.
    assert newest.row_version == "serving-4"
    assert torch.equal(newest.scorer.score(rows), scores["serving-4"])
    info = follows.following.info()
    assert (info.state, info.newest) == ("pinned", "serving-4")
    follows.until_looked(trained.publish())  # a turn of the thread later it still stays
    assert follows.live.current is not None
    assert follows.live.current.name == "serving-2"
    follows.following.follow()
    assert_parity(follows.until("serving-5"), trained)
    assert follows.following.info().state == "following"


def test_there_is_nothing_before_the_first(trained: Trainer, follow: Follow, tmp_path: Path) -> None:
    follows = follow(tmp_path)
    follows.until("serving-1")
    with pytest.raises(Refusal, match="there is no version before serving-1; there are: serving-1") as refused:
        follows.roll_back()
    assert refused.value.status == 404


def test_roll_back_passes_over_a_snapshot_with_the_same_content(
    trained: Trainer, follow: Follow, tmp_path: Path
) -> None:
    trained.publish()
    compact(trained.writer._holder, "serving", keep=99)  # type: ignore[arg-type]
    follows = follow(tmp_path)
    follows.until("serving-3")
    assert follows.following.version_before() == "serving-1"


def test_a_version_that_is_gone_is_named_with_those_there(trained: Trainer, follow: Follow, tmp_path: Path) -> None:
    for _ in range(2):
        trained.writer._parent = None
        trained.publish()
    trained.writer._holder.collect({"serving": 1})  # type: ignore[union-attr]
    follows = follow(tmp_path)
    before = follows.until("serving-3")
    with pytest.raises(Refusal, match="there is no version 'serving-1'; there are: serving-3") as refused:
        follows.following.pin("serving-1")
    assert (refused.value.status, refused.value.field) == (404, "version")
    for name in (
        "../../etc",
        "../serving-3",
        "%2e%2e/serving-3",
        "serving-3/../serving-3",
        "serving-3\0",
        "/serving-3",
    ):
        with pytest.raises(Refusal) as refused:
            follows.following.pin(name)
        assert (refused.value.status, refused.value.field) == (404, "version")
        assert f"named best, last or like resume-12, received '{name}'" in refused.value.reason
    assert follows.live.current is before
    assert follows.following.info().state == "following"
    assert not follows.live.is_held


def test_a_damaged_version_is_not_pinned(trained: Trainer, follow: Follow, tmp_path: Path) -> None:
    trained.publish()
    path = data_file(trained.state, trained.state.manifest("serving", 1), "item.rows.0.arrow")
    follows = follow(tmp_path)
    before = follows.until("serving-2")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(Refusal, match=r"serving-1 cannot be served: .*is damaged") as refused:
        follows.following.pin("serving-1")
    assert refused.value.status == 409
    assert follows.live.current is before
    assert_parity(follows.until(trained.publish()), trained)  # still follows


def test_paused_it_stays(trained: Trainer, follow: Follow, tmp_path: Path) -> None:
    follows = follow(tmp_path)
    before = follows.until("serving-1")
    follows.following.pause()
    follows.until_looked(trained.publish())
    assert follows.live.current is before
    assert follows.following.info().state == "paused"
    follows.following.follow()
    assert_parity(follows.until("serving-2"), trained)


def test_it_may_begin_at_a_version(trained: Trainer, follow: Follow, tmp_path: Path) -> None:
    rows = trained.rows(30, seed=7)
    scores = trained.scorer().score(rows)
    trained.publish()
    follows = follow(tmp_path, version="serving-1")
    version = follows.live.wait(60)
    assert version is not None
    assert version.name == "serving-1"
    assert torch.equal(version.scorer.score(rows), scores)
    assert follows.following.info().state == "pinned"
    follows.following.follow()
    assert_parity(follows.until("serving-2"), trained)


def test_a_version_to_begin_at_that_is_not_there(trained: Trainer, follow: Follow, tmp_path: Path) -> None:
    follows = follow(tmp_path, version="serving-9")
    while follows.following.last_error is None:
        assert follows.live.current is None
        time.sleep(0.005)
    reason = follows.following.why_not_ready()
    assert reason is not None
    assert "there is no version 'serving-9'; there are: serving-1" in reason
    assert follows.live.current is None
    # It waits for that version, and takes no other, unless an operator says so.
    follows.following.pin("serving-1")
    assert_parity(follows.until("serving-1"), trained)
    assert follows.following.last_error is None


def test_what_is_no_name_of_a_version_is_refused_at_once(trained: Trainer, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a version is named like serving-12, received 'newest'"):
        Following(tmp_path, Live(), version="newest")


def test_an_operator_does_not_wait_for_a_snapshot_that_is_being_loaded(
    trained: Trainer, follow: Follow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new snapshot is read in pieces; between two of them the thread looks whether it is asked for something."""
    monkeypatch.setattr("embtables.state.read.serve.PIECE_BYTES", 4096)
    trained.publish()
    follows = follow(tmp_path)
    before = follows.until("serving-2")
    reading, go_on, pieces = threading.Event(), threading.Event(), list[None]()
    give_way = follows.following._catch_up._go_on

    def slow() -> None:
        pieces.append(None)
        reading.set()
        assert go_on.wait(60)
        give_way()

    follows.following._catch_up._go_on = slow
    trained.writer._parent = None
    trained.publish()
    assert reading.wait(60)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(follows.following.pause)
        while follows.following._commands.empty():
            time.sleep(0.005)
        assert not asked.done()
        go_on.set()
        asked.result(60)
    assert len(pieces) == 1  # of many: none is read after it was asked
    assert follows.following.info().state == "paused"
    assert follows.live.current is before
    follows.following.follow()
    assert_parity(follows.until("serving-3"), trained)
    assert len(pieces) > 10


def test_it_may_be_stopped_before_it_was_started(trained: Trainer, tmp_path: Path) -> None:
    following = Following(tmp_path, Live())
    following.stop()
    with pytest.raises(Refusal, match="the server stops"):
        following.follow()


def test_after_stop_nothing_is_asked_for(trained: Trainer, follow: Follow, tmp_path: Path) -> None:
    follows = follow(tmp_path)
    before = follows.until("serving-1")
    follows.following.stop()
    assert follows.live.current is before
    with pytest.raises(Refusal, match="the server stops"):
        follows.following.pin("serving-1")

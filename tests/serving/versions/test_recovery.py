"""What fails for a moment, or halfway, is gone about again."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from embtables.errors import ConfigError
from embtables.rows.content import TableContent
from embtables.serving.versions.follow import Following, FollowSettings
from embtables.serving.versions.listing import Listing
from embtables.serving.versions.live import Live
from embtables.serving.versions.served_version import ServedVersion
from embtables.state.folder.local_folder import LocalFolder
from embtables.tables.served_tables import ServedTables
from tests.serving.versions.test_follow import Follow, assert_parity
from tests.serving.versions.test_set_aside import newest, rejected
from tests.serving.versions.trainer_for_tests import Trainer, data_file

CATCH_UP = "embtables.serving.versions.catch_up"


def test_a_file_that_can_be_read_later_is(
    trained: Trainer, follow: Follow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest does not change, as where a network file system was gone for a moment."""
    monkeypatch.setattr(f"{CATCH_UP}._FIRST_RETRY_SECONDS", 0.05)
    follows = follow(tmp_path)
    follows.until("serving-1")
    follows.following.pause()
    trained.publish()
    path = data_file(trained.state, newest(trained), "item.rows.0.arrow")
    path.rename(tmp_path / "away")
    follows.following.follow()
    assert "cannot be read: No such file" in rejected(follows).detail
    (tmp_path / "away").rename(path)
    assert_parity(follows.until("serving-2"), trained)
    assert follows.following.info().rejected["damaged"] == 1


def test_a_delta_that_is_applied_in_part_is_followed_by_fresh_tables(
    trained: Trainer, follow: Follow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embtables.serving.versions.follow._AFTER_FAULT_SECONDS", 0.05)
    follows = follow(tmp_path)
    before = follows.until("serving-1")
    take_over, left = ServedTables.take_over, 2

    def fails(tables: ServedTables, table: str, content: TableContent, **options: Any) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise MemoryError("no memory for a row")
        take_over(tables, table, content, **options)

    monkeypatch.setattr(ServedTables, "take_over", fails)
    trained.publish()
    version = follows.until("serving-2")
    assert version.scorer.tables is not before.scorer.tables
    assert_parity(version, trained)
    assert before.row_version == "serving-1"  # it never said that all rows were there
    assert_parity(follows.until(trained.publish()), trained)


class Choosy(Live):
    """Whoever scores cannot use versions of these names."""

    def __init__(self, *refused: str) -> None:
        super().__init__()
        self.refused = set(refused)
        self.prepared: list[str] = []

    def prepare(self, version: ServedVersion) -> None:
        if version.name in self.refused:
            raise ConfigError("no engine is within the bound of error", argument="mode")
        assert self.current is None or self.current.name != version.name, "it answers already"
        self.prepared.append(version.name)


@pytest.mark.parametrize("snapshot", [False, True])
def test_a_version_that_cannot_be_prepared_is_set_aside(trained: Trainer, tmp_path: Path, snapshot: bool) -> None:
    live = Choosy("serving-2")
    following = Following(tmp_path, live, FollowSettings(poll_seconds=0.05, look_seconds=0.05))
    following.start()
    try:
        before = live.wait(60)
        assert before is not None
        rows = trained.rows(30, seed=7)
        scores = before.scorer.score(rows)
        if snapshot:
            trained.writer._parent = None
        trained.publish()
        assert following.set_aside.wait(1, 60)
        found = following.set_aside.last[-1]
        assert (found.version, found.reason) == ("serving-2", "other")
        assert "no engine is within the bound of error" in found.detail
        assert live.current is before
        assert torch.equal(before.scorer.score(rows), scores)
        trained.writer._parent = None
        trained.publish()
        version = live.wait(60, "serving-3")
        assert_parity(version, trained)
        assert live.prepared == ["serving-1", "serving-3"]
    finally:
        following.stop()


def test_a_folder_that_cannot_be_listed_says_so_and_comes_back(
    trained: Trainer, follow: Follow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    follows = follow(tmp_path)
    before = follows.until("serving-1")

    def fails(folder: LocalFolder, name: str) -> list[str]:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(LocalFolder, "names", fails)
        while follows.following.last_error is None:
            follows.following.pause()  # the thread has another turn
        assert "cannot be read: Input/output error" in follows.following.last_error
        assert follows.live.current is before
    follows.following.follow()
    assert_parity(follows.until(trained.publish()), trained)
    assert follows.following.last_error is None


def test_a_turn_without_anything_new_reads_one_manifest(
    trained: Trainer, follow: Follow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chain may be long, and a turn comes every second."""
    for _ in range(4):
        trained.publish()
    follows = follow(tmp_path)
    follows.until("serving-5")
    read, turns, look = list[str](), threading.Semaphore(0), Listing.look

    def looked(listing: Listing) -> None:
        look(listing)
        turns.release()

    monkeypatch.setattr(Listing, "look", looked)
    for _ in range(2):
        assert turns.acquire(timeout=60)  # the turn that put the version has ended
    read_file = LocalFolder.read

    def noted(folder: LocalFolder, name: str, limit: int) -> bytes:
        read.append(name)
        return read_file(folder, name, limit)

    with monkeypatch.context() as patch:
        patch.setattr(LocalFolder, "read", noted)
        for _ in range(5):
            assert turns.acquire(timeout=60)
    assert set(read) == {"manifests/serving-0000000005.json"}
    assert len(read) <= 7
    assert_parity(follows.until(trained.publish()), trained)

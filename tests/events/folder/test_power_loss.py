"""Whatever a loss of power takes: what was acknowledged is there, in order and once, and the log goes on."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from embtables.errors import EventLogError
from embtables.events.folder import FolderLog, head, recovery, writer
from embtables.events.options import FolderOptions
from tests.contracts.event_log import read_all
from tests.events.events_for_tests import events
from tests.events.folder.power_for_tests import Op, Recorder, after_power_loss, baseline

APPENDS = 24
TRIES = 2  # disks for each point of the record


@pytest.fixture
def restart(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """The machine starts again: its boot has another name."""
    boots = iter(range(1, 10**9))

    def again() -> None:
        boot = next(boots).to_bytes(16, "little")
        for module in (writer, recovery, head):
            monkeypatch.setattr(module, "boot_id", lambda: boot)

    return again


def numbers(log: FolderLog) -> list[int]:
    return [int(entry.events["event_id"][0].as_py()[1:]) for entry in read_all(log, 0)]


class History:
    """A log that three objects, as if they were processes, append to, and a reader that reads beside them."""

    def __init__(self, root: Path, options: dict[str, Any], seed: int) -> None:
        rng = random.Random(seed)
        recorder = Recorder(root, fails=lambda: rng.random() < 0.1)
        self.root = root
        self.acknowledged: list[tuple[int, int]] = []  # how many operations were done by then, and the number
        self.read: list[tuple[int, list[int]]] = []
        with recorder.recording(), ExitStack() as stack:
            made = FolderOptions(segment_bytes=4096, **options)
            logs = [stack.enter_context(closing(FolderLog(root, made))) for _ in range(3)]
            for number in range(APPENDS):
                try:
                    rng.choice(logs).append(0, events(number, rng.choice((1, 30))))
                    self.acknowledged.append((len(recorder.ops), number))
                except EventLogError as error:
                    assert "Input/output error" in str(error)
                self.read.append((len(recorder.ops), numbers(rng.choice(logs))))
        self.ops: list[Op] = recorder.ops

    def disks(self, at: Path, tries: int, rng: random.Random) -> Any:
        """Folders as they may be found: the point, and the folder."""
        for point in range(len(self.ops) + 1):
            for _ in range(tries):
                after_power_loss(self.ops[:point], self.root, at, rng)
                yield point, at
                shutil.rmtree(at)


@pytest.mark.parametrize("seed", range(3))
def test_what_was_acknowledged_or_read_is_there(tmp_path: Path, restart: Callable[[], None], seed: int) -> None:
    history = History(tmp_path / "log", {}, seed)
    assert {op.kind for op in history.ops} >= {"write", "sync", "failed", "make", "remove", "sync_folder", "mkdir"}
    kept_more = False
    for point, disk in history.disks(tmp_path / "disk", TRIES, random.Random(seed)):
        acknowledged = [number for done, number in history.acknowledged if done <= point]
        read = max((found for done, found in history.read if done <= point), key=len, default=[])
        restart()
        with closing(FolderLog(disk)) as log:
            found = numbers(log)
            assert found == sorted(set(found)), f"after operation {point}"
            assert set(acknowledged) <= set(found), f"after operation {point}"
            assert found[: len(read)] == read, f"after operation {point}"
            log.append(0, events(APPENDS, 1))
            assert numbers(log) == [*found, APPENDS]
            kept_more |= len(found) > len(acknowledged)
    assert kept_more


@pytest.mark.parametrize("fsync", ["interval", "never"])
def test_without_a_sync_for_each_entry_an_end_may_be_lost_but_nothing_else(
    tmp_path: Path, restart: Callable[[], None], fsync: str
) -> None:
    options = {"fsync": fsync, **({"fsync_seconds": 3600} if fsync == "interval" else {})}
    history = History(tmp_path / "log", options, 0)
    lost = False
    for point, disk in history.disks(tmp_path / "disk", TRIES, random.Random(0)):
        acknowledged = [number for done, number in history.acknowledged if done <= point]
        restart()
        with closing(FolderLog(disk)) as log:
            found = numbers(log)
            assert found[: len(acknowledged)] == acknowledged[: len(found)], f"after operation {point}"
            lost |= len(found) < len(acknowledged)
            log.append(0, events(APPENDS, 1))
            assert numbers(log) == [*found, APPENDS]
    assert lost


def test_two_losses_of_power_one_after_the_other(tmp_path: Path, restart: Callable[[], None]) -> None:
    history, rng = History(tmp_path / "log", {}, 7), random.Random(7)
    for point in rng.sample(range(len(history.ops)), 12):
        disk, second = tmp_path / "disk", tmp_path / "second"
        after_power_loss(history.ops[:point], history.root, disk, rng)
        done = [(0, number) for at, number in history.acknowledged if at <= point]
        before, again = baseline(disk), Recorder(disk, fails=lambda: False)
        restart()
        with again.recording(), closing(FolderLog(disk)) as log:
            for number in range(APPENDS, APPENDS + 3):
                log.append(0, events(number, 1))
                done.append((len(again.ops), number))
        for later in range(len(again.ops) + 1):
            after_power_loss(before + again.ops[:later], disk, second, rng)
            restart()
            with closing(FolderLog(second)) as log:
                found = numbers(log)
                assert found == sorted(set(found))
                assert {number for at, number in done if at <= later} <= set(found), f"after {point}, {later}"
            shutil.rmtree(second)
        shutil.rmtree(disk)

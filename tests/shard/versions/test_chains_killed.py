"""A rank that is killed, stops or takes long while a version is written: it is whole or absent, and the others know."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from embtables.errors import WorldError
from embtables.shard import world as worlds
from embtables.shard.world import World
from embtables.state.folder.version_folder import LeaseHolder, StateFolder
from embtables.state.write import gather_results
from embtables.state.write.version_writer import VersionWriter
from tests.contents import Arrays, same
from tests.shard.groups_for_tests import Group
from tests.shard.versions.chains_for_tests import expected, holding, loaded, of, train

TIMEOUT_SECONDS = 3


@pytest.fixture(scope="module")
def two() -> list[Arrays]:
    return expected([2, 4])


@pytest.fixture
def pair() -> Iterator[Group]:
    """A group of two that need not live on."""
    made = Group(2)
    yield made
    for process in made._processes:
        process.kill()
    made.close()


def cut_twice(world: World, folder: str, rank: int, call: str, nth: int, happens: str) -> str:
    """Two versions; at the nth call of the second one's writing something happens to a rank. How it went."""
    worlds.TIMEOUT_SECONDS, gather_results.ROUND_SECONDS = TIMEOUT_SECONDS, 0.5
    ranks = of(world)
    with holding(world, Path(folder)) as held:
        chain = VersionWriter(held, "resume", ranks.tables[0], world=world)
        train(ranks, range(2))
        chain.cut({}, {})
        chain.wait()
        train(ranks, range(2, 4))
        with pytest.MonkeyPatch.context() as patch:
            if world.rank == rank:
                target: Any = Path if call in ("mkdir", "unlink") else os
                patch.setattr(target, call, met(getattr(target, call), nth, happens))
            chain.cut({}, {})
            try:
                chain.wait()
            except WorldError as error:
                return str(error)
            finally:
                chain.close()
    return ""


def met(function: Callable[..., Any], nth: int, happens: str) -> Callable[..., Any]:
    left = nth

    def called(*arguments: Any, **options: Any) -> Any:
        nonlocal left
        if threading.current_thread().name.startswith("state."):
            left -= 1
            if left == 0 and happens == "slow":
                time.sleep(2 * TIMEOUT_SECONDS)
            elif left == 0:
                os.kill(os.getpid(), signal.SIGKILL if happens == "killed" else signal.SIGSTOP)
        return function(*arguments, **options)

    return called


def run(pair: Group, rank: int, *arguments: Any) -> str:
    """What the rank says to which nothing happens."""
    for pipe in pair._pipes:
        pipe.send((f"{__name__}:cut_twice", arguments))
    done, value = pair._pipes[1 - rank].recv()
    assert done, value
    return str(value)


@pytest.mark.parametrize(
    ("rank", "call", "nth", "newest"),
    [
        (1, "write", 2, 1),
        (1, "fsync", 3, 1),
        (0, "mkdir", 1, 1),
        (0, "write", 40, 1),
        (0, "link", 1, 1),
        (0, "unlink", 1, 2),
    ],
)
def test_a_rank_killed_in_a_cut_leaves_the_newest_version_whole(
    tmp_path: Path, pair: Group, two: list[Arrays], rank: int, call: str, nth: int, newest: int
) -> None:
    said = run(pair, rank, str(tmp_path), rank, call, nth, "killed")
    assert "another rank is gone" in said
    pair._processes[rank].join(20)
    assert pair._processes[rank].exitcode == -signal.SIGKILL
    state = StateFolder(tmp_path)
    assert state.sequences("resume")[-1] == newest
    for version in state.chain("resume", newest):
        state.verify(version)
    assert same(loaded(tmp_path, newest), two[newest - 1])
    with LeaseHolder(state) as writer:
        writer.collect({"resume": 100})
    assert len(list((tmp_path / "versions").iterdir())) == newest
    assert not list(tmp_path.glob("*/tmp-*"))


def test_a_slow_rank_is_waited_for_and_a_silent_one_is_not(tmp_path: Path, pair: Group, two: list[Arrays]) -> None:
    slow, silent = tmp_path / "slow", tmp_path / "silent"
    assert run(pair, 1, str(slow), 1, "fsync", 2, "slow") == ""
    assert pair._pipes[1].recv() == (True, "")
    assert same(loaded(slow, 2), two[1])
    said = run(pair, 1, str(silent), 1, "write", 3, "silent")
    assert "another rank is gone or has been silent" in said
    assert StateFolder(silent).sequences("resume") == [1]
    assert same(loaded(silent, 1), two[0])
    assert len(list((silent / "versions").iterdir())) == 1

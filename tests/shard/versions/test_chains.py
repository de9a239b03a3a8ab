"""Versions that several ranks write: those of one process, whoever reads them, and whole or absent whatever fails."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embtables.errors import StateError
from embtables.rows.protocol import Capture
from embtables.shard.world import TIMEOUT_SECONDS, World
from embtables.state.folder.version_folder import LeaseHolder, StateFolder
from embtables.state.read.version_reader import read_version
from embtables.state.write.gather_results import ROUND_SECONDS
from embtables.state.write.version_writer import VersionWriter
from tests.contents import Arrays, same
from tests.shard.groups_for_tests import Group
from tests.shard.threads_for_tests import in_threads
from tests.shard.versions import chains_for_tests as chains
from tests.shard.versions.chains_for_tests import EVERY_ID, expected, holding, loaded, of, train, write
from tests.state.ranks_for_tests import ONE, Ranks, ranges

ENDS = (3, 5, 6, 9, 10)
Run = Callable[..., list[Any]]


@pytest.fixture(params=["gloo", "threads"])
def run(request: pytest.FixtureRequest, group: Callable[[int], Group]) -> Run:
    def run_write(size: int, *arguments: Any) -> list[Any]:
        if request.param == "gloo":
            return group(size).run(f"{chains.__name__}:write", *arguments)
        return in_threads(size, lambda world: write(world, *arguments))

    return run_write


@pytest.mark.parametrize("size", [1, 2, 3])
def test_versions_are_those_of_one_process_at_any_number_of_ranks(tmp_path: Path, run: Run, size: int) -> None:
    assert run(size, tmp_path, ENDS[:3]) == [[]] * size
    assert run(size % 3 + 1, tmp_path, ENDS[3:]) == [[]] * (size % 3 + 1)
    state = StateFolder(tmp_path)
    assert [state.manifest("resume", n).parent for n in range(1, 6)] == [None, 1, 2, 3, 4]
    assert len(state.manifest("resume", 2).files_of("grows", "rows")) == size
    kinds = {
        what
        for n in range(1, 6)
        for what in ("tombstones", "waiting")
        if state.manifest("resume", n).files_of("grows", what)
    }
    assert kinds == {"tombstones", "waiting"}
    for number, (end, was) in enumerate(zip(ENDS, expected(ENDS), strict=True), 1):
        assert same(loaded(tmp_path, number), was)
        version = read_version(state, state.manifest("resume", number), chains.made().stored)
        assert version.content == {"steps": end}
        assert version.tensors["dense"].tolist() == [end] * 3
    one, others = Ranks(chains.made, ONE), Ranks(chains.made, ranges([100, 101, 700]))
    for ranks in (one, others):
        ranks.load(state, state.chain("resume", 5))
    assert others.read(EVERY_ID).equal(one.read(EVERY_ID))


def test_a_snapshot_follows_after_so_many_deltas(tmp_path: Path) -> None:
    assert in_threads(2, lambda world: write(world, tmp_path, ENDS, longest=1)) == [[], []]
    state = StateFolder(tmp_path)
    assert [state.manifest("resume", n).parent for n in range(1, 6)] == [None, 1, None, 3, None]
    assert same(loaded(tmp_path, 5), expected(ENDS)[-1])


def test_a_rank_that_does_not_know_what_changed_makes_all_write_everything(tmp_path: Path) -> None:
    def work(world: World) -> None:
        ranks = of(world)
        tables = ranks.tables[0]
        capture = tables.rows.capture

        def forgetful(table: int, after: int | None, *, weights_only: bool = False) -> Capture:
            if after is not None:
                raise StateError("changes since that cut are not known any more")
            return capture(table, after)

        with holding(world, tmp_path) as held:
            chain = VersionWriter(held, "resume", tables, world=world)
            for cut in range(3):
                train(ranks, range(cut, cut + 1))
                with pytest.MonkeyPatch.context() as patch:
                    if (world.rank, cut) == (1, 1):
                        patch.setattr(tables.rows, "capture", forgetful)
                    chain.cut({}, {})
            chain.wait()
            chain.close()
            assert chain.failures == []

    in_threads(2, work)
    state = StateFolder(tmp_path)
    assert [state.manifest("resume", n).parent for n in state.sequences("resume")] == [None, 2]
    assert state.manifest("resume", 2).parent is None
    assert same(loaded(tmp_path, 3), expected([3])[0])


class Failing:
    """The nth call of a kind fails, once, where a rank's own thread makes it."""

    def __init__(self, patch: pytest.MonkeyPatch, fault: Fault) -> None:
        self.fired = False
        self._code, self._left, self._thread = fault.code, fault.nth, f"state.{fault.rank}_"
        target: Any = Path if fault.call in ("mkdir", "unlink", "open") else os
        patch.setattr(target, fault.call, self._wrapped(getattr(target, fault.call)))

    def _wrapped(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **options: Any) -> Any:
            if threading.current_thread().name.startswith(self._thread):
                self._left -= 1
                if self._left == 0:
                    self.fired = True
                    raise OSError(self._code, os.strerror(self._code))
            return function(*arguments, **options)

        return called


@pytest.fixture(scope="module")
def three() -> list[Arrays]:
    return expected([2, 4, 5])


@dataclass(frozen=True)
class Fault:
    """Which call fails, at which rank, and how."""

    call: str
    nth: int
    rank: int

    @property
    def code(self) -> int:
        return (errno.ENOSPC, errno.EIO)[self.nth % 2]


def cut_thrice(world: World, folder: Path, fault: Fault, first: Arrays) -> tuple[str | None, list[str], bool]:
    """Three versions, the fault in the second: how that went, and whether the fault was met here."""
    ranks = of(world)
    with holding(world, folder) as held, pytest.MonkeyPatch.context() as patch:
        chain = VersionWriter(held, "resume", ranks.tables[0], world=world, keep=100)
        train(ranks, range(2))
        chain.cut({}, {})
        chain.wait()
        train(ranks, range(2, 4))
        world.gather_bytes(b"")
        at = Failing(patch, fault) if world.rank == fault.rank else None
        world.gather_bytes(b"")
        chain.cut({}, {})
        failed = failure_of(chain)
        reported = [str(error) for error in chain.failures]
        world.gather_bytes(b"")
        patch.undo()
        world.gather_bytes(b"")
        if world.rank == 0 and failed is not None:
            assert StateFolder(folder).sequences("resume") == [1]
            assert same(loaded(folder, 1), first)
        train(ranks, range(4, 5))
        chain.cut({}, {})
        chain.wait()
        chain.close()
        if isinstance(held, LeaseHolder):
            held.collect({"resume": 100})
        return failed, reported, at is not None and at.fired


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    ("call", "every"), [("write", 11), ("fsync", 1), ("link", 1), ("mkdir", 1), ("unlink", 1), ("open", 1)]
)
def test_a_write_that_fails_at_one_rank_loses_nothing_at_any(
    tmp_path: Path, rank: int, call: str, every: int, three: list[Arrays]
) -> None:
    """Every call of a cut fails in turn, of writes some; the next cut succeeds and holds what the failed one would."""
    for nth in count(1, every):
        folder, fault = tmp_path / str(nth), Fault(call, nth, rank)
        found = in_threads(2, partial(cut_thrice, folder=folder, fault=fault, first=three[0]))
        failed, reported, _ = found[0]
        fired = any(each[2] for each in found)
        assert [each[:2] for each in found] == [(failed, reported)] * 2
        # What fails after the manifest is there leaves garbage alone, and is reported.
        assert fired == (failed is not None or reported != [])
        for text in [failed] if failed is not None else reported:
            assert os.strerror(fault.code) in text
        assert failed is None or f"rank {rank}" in failed
        numbers = StateFolder(folder).sequences("resume")
        assert numbers == ([1, 2] if failed is not None else [1, 2, 3])
        assert StateFolder(folder).manifest("resume", numbers[-1]).parent == numbers[-2]
        assert same(loaded(folder, numbers[-1]), three[2])
        assert len(list((folder / "versions").iterdir())) == len(numbers)
        assert not list(folder.glob("*/tmp-*"))
        if not fired:
            assert nth > 1 or (rank == 1 and call in ("link", "mkdir", "unlink"))
            return


def test_a_rank_that_still_writes_speaks_before_it_counts_as_gone() -> None:
    assert ROUND_SECONDS <= TIMEOUT_SECONDS / 4


def failure_of(chain: VersionWriter) -> str | None:
    try:
        chain.wait()
    except StateError as error:
        return str(error)
    return None


def refused(folder: Callable[[World], Path], spoilt: Callable[[World, Ranks], None]) -> str:
    """The error that all ranks get of a version, which then is not there."""

    def work(world: World) -> str | None:
        ranks = of(world)
        train(ranks, range(2))
        spoilt(world, ranks)
        with holding(world, folder(world)) as held:
            chain = VersionWriter(held, "resume", ranks.tables[0], world=world)
            chain.cut({}, {})
            failed = failure_of(chain)
            chain.close()
            return failed

    first, second = in_threads(2, work)
    assert first == second is not None
    return first or ""


def test_ranks_need_the_same_folder(tmp_path: Path) -> None:
    said = refused(lambda world: tmp_path / str(world.rank), lambda world, ranks: None)
    assert "rank 1: does not see resume-0000000001-" in said
    assert "which rank 0 has made: all need the same shared folder" in said
    assert list((tmp_path / "0" / "versions").iterdir()) == []
    assert StateFolder(tmp_path / "0").sequences("resume") == []


def test_what_a_rank_writes_must_come_to_rank_0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where rank 1 sees the shared folder below a layer of its own."""
    size = StateFolder(tmp_path).folder.__class__.size

    def unseen(folder: Any, name: str) -> int:
        if name.endswith(".1.arrow"):
            raise FileNotFoundError(name)
        return size(folder, name)

    monkeypatch.setattr("embtables.state.folder.local_folder.LocalFolder.size", unseen)
    said = refused(lambda world: tmp_path, lambda world, ranks: None)
    assert "fixed.rows.1.arrow of rank 1 is not where rank 0 sees it" in said
    assert list((tmp_path / "versions").iterdir()) == []


def test_ranks_that_did_not_step_together_make_no_version(tmp_path: Path) -> None:
    def spoilt(world: World, ranks: Ranks) -> None:
        if world.rank == 1:
            train(ranks, range(3, 4))

    said = refused(lambda world: tmp_path, spoilt)
    assert said == "table fixed: rank 1 has updates 3, rank 0 has 2: ranks step together"
    assert list((tmp_path / "versions").iterdir()) == []


def test_a_key_of_another_rank_makes_no_version(tmp_path: Path) -> None:
    def spoilt(world: World, ranks: Ranks) -> None:
        ranks.owned = ((0, 1024),)
        ranks.step(chains.batch(2))
        ranks.step(chains.batch(2))

    said = refused(lambda world: tmp_path, spoilt)
    assert said.startswith("table grows, rank 0: key ")
    assert said.endswith("expected 0..511")


def test_a_version_that_rank_0_cannot_begin_is_begun_by_none(tmp_path: Path) -> None:
    def work(world: World) -> None:
        ranks = of(world)
        with holding(world, tmp_path) as held:
            chain = VersionWriter(held, "resume", ranks.tables[0], world=world)
            said = "must be JSON" if world.rank == 0 else "rank 0: could not take a version, so no rank does"
            with pytest.raises(StateError, match=said):
                chain.cut({}, {"loss": float("nan")})
            train(ranks, range(1))
            chain.cut({"x": np.arange(2)}, {})
            chain.wait()
            chain.close()

    in_threads(2, work)
    assert StateFolder(tmp_path).sequences("resume") == [1]
    assert same(loaded(tmp_path, 1), expected([1])[0])


def test_rank_0_alone_holds_the_lease(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="rank 0: rank 0 must hold the lease to write, and no other rank may"):
        VersionWriter(StateFolder(tmp_path), "resume", chains.made())

"""Whatever part of the un-synced writes and names a loss of power takes: the parent or the child is there, whole."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from embtables.shard.world import World
from embtables.state.folder.version_folder import LeaseHolder, StateFolder
from embtables.state.tools.compact import compact
from embtables.state.write.version_writer import VersionWriter
from tests.contents import same
from tests.faults import driver
from tests.faults.driver import load, run
from tests.faults.power import Recorder, after_power_loss
from tests.faults.test_crash import assert_same, undisturbed
from tests.shard.threads_for_tests import in_threads
from tests.shard.versions.chains_for_tests import expected, holding, loaded, of, train

STEPS = 5
TRIES = 6  # disks for each point of the record


def test_after_a_loss_of_power_a_version_is_whole(tmp_path: Path) -> None:
    root = tmp_path / "state"
    root.mkdir()
    recorder, done = Recorder(root), [0] * (STEPS + 1)
    with recorder.recording():
        for step in range(1, STEPS + 1):
            run(root, step)
            done[step] = len(recorder.ops)
        with LeaseHolder(StateFolder(root)) as writer:
            assert len(compact(writer, "resume", keep=1).chain) > 1
    ops, expected, rng = recorder.ops, undisturbed(), random.Random(0)
    kinds = {op.kind for op in ops}
    assert kinds == {"write", "sync", "mkdir", "create", "link", "rename", "unlink", "rmdir"}
    found, after_the_last = set(), set()
    for point in range(0, len(ops) + 1):
        finished = max(step for step in range(STEPS + 1) if done[step] <= point)
        for _ in range(TRIES):
            disk = tmp_path / "disk"
            after_power_loss(ops[:point], rng).materialise(disk)
            rows = load(disk)
            assert finished <= rows.step <= finished + 1, f"after operation {point}"
            assert_same(rows, expected[rows.step])
            found.add((finished, rows.step))
            everything_named_is_whole(StateFolder(disk))
            after_the_last |= set(StateFolder(disk).sequences("resume")[-1:]) if finished == STEPS else set()
            if point % 7 == 0:
                assert_same(run(disk, STEPS), expected[STEPS])
            shutil.rmtree(disk)
    # Both outcomes were seen of every cut, and of the compaction after them.
    assert after_the_last == {STEPS, STEPS + 1}
    assert found >= {(step, step + more) for step in range(STEPS) for more in (0, 1)}


def everything_named_is_whole(state: StateFolder) -> None:
    """Every manifest has its chain and its files, every pin its version, and no lease number is ahead of the lease."""
    numbers = state.sequences("resume")
    for number in numbers:
        for version in state.chain("resume", number):
            state.verify(version)
    pinned = state.pinned("best")
    if pinned is not None:
        state.chain(*pinned)
    elif numbers:
        assert max(load_step(state, n) for n in numbers) <= driver.SNAPSHOT_EVERY
    lease = state.folder.root / "lease.json"
    used = [state.manifest("resume", n).writer for n in numbers]
    if used:
        assert f'"epoch": {max(used)}' in lease.read_text() or f'"epoch": {max(used) + 1}' in lease.read_text()


def load_step(state: StateFolder, number: int) -> int:
    return int(state.manifest("resume", number).content["steps"][0])


def test_after_a_loss_of_power_a_version_that_several_ranks_wrote_is_whole(tmp_path: Path) -> None:
    root, cuts = tmp_path / "state", 3
    root.mkdir()
    recorder, done = Recorder(root), [0] * (cuts + 1)

    def work(world: World) -> None:
        ranks = of(world)
        with holding(world, root) as held:
            chain = VersionWriter(held, "resume", ranks.tables[0], world=world, keep=100)
            for cut in range(cuts):
                train(ranks, range(2 * cut, 2 * cut + 2))
                chain.cut({}, {}, ["best"])
                chain.wait()
                if world.rank == 0:
                    done[cut + 1] = len(recorder.ops)
            chain.close()

    with recorder.recording():
        in_threads(2, work)
    were, rng, found = expected([2, 4, 6]), random.Random(1), set()
    for point in range(len(recorder.ops) + 1):
        finished = max(cut for cut in range(cuts + 1) if done[cut] <= point)
        disk = tmp_path / "disk"
        after_power_loss(recorder.ops[:point], rng).materialise(disk)
        state = StateFolder(disk)
        newest = max(state.sequences("resume"), default=0)
        assert finished <= newest <= finished + 1, f"after operation {point}"
        for version in state.chain("resume", newest) if newest else []:
            state.verify(version)
        if newest and point % 5 == 0:
            assert same(loaded(disk, newest), were[newest - 1])
        found.add((finished, newest))
        shutil.rmtree(disk)
    assert found >= {(cut, cut + more) for cut in range(cuts) for more in (0, 1)}

"""Whoever follows the versions of a folder ends with what the writer has, whatever happens to the folder meanwhile."""

from __future__ import annotations

import json
import random
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embtables import CollisionlessTable, Feature, Tables
from embtables.errors import StateError
from embtables.rows.content import TableContent
from embtables.schema import Identity, Sgd
from embtables.state.folder.version_folder import LeaseHolder, StateFolder
from embtables.state.format.manifest import Manifest
from embtables.state.read.follower import Followed, Follower
from embtables.state.read.version_reader import read_version
from embtables.state.tools.compact import compact
from embtables.state.write.version_writer import VersionWriter
from tests.contents import flat, same
from tests.faults import kills
from tests.faults.driver import STORED, TrainedTable
from tests.faults.test_crash import assert_same
from tests.state.versions_for_tests import tables, train

DOCUMENTATION = Path(__file__).parents[3] / "docs" / "format.md"
Contents = dict[str, TableContent]


def contents(state: StateFolder, manifest: Manifest) -> Contents:
    return read_version(state, manifest, tables().stored).tables


class Standby:
    """Tables that follow those of a writer."""

    def __init__(self, state: StateFolder, purpose: Any = "resume", read: Any = contents) -> None:
        self.made = tables()
        self.names: list[str] = []
        self._state, self._purpose, self._read = state, purpose, read
        self.follower: Follower[Contents] = Follower(state, purpose, read=read)
        self.position: dict[str, Any] | None = None

    def restart(self) -> None:
        """As another process would, that finds its tables where the position says."""
        position = json.loads(json.dumps(self.position))
        self.follower = Follower(self._state, self._purpose, position, read=self._read)

    def take(self) -> None:
        for version in self.follower.poll():
            self.take_over(version)

    def take_over(self, version: Followed[Contents]) -> None:
        if version.is_snapshot:
            self.made.load([version.content])
        else:
            for table, content in version.content.items():
                self.made.take_over(table, content)
        self.names.append(version.manifest.name)
        self.position = version.position


class Trainer:
    """A writer of versions, which trains a little before each."""

    def __init__(self, holder: LeaseHolder, purpose: Any = "resume", **options: Any) -> None:
        self.made, self.step = tables(), 0
        self.writer = VersionWriter(holder, purpose, self.made, **options)

    def cut(self, *, trains: bool = True) -> None:
        if trains:
            train(self.made, range(self.step, self.step + 1))
        self.step += 1
        self.made.set("grows", torch.tensor([self.step]), torch.full((1, 3), float(self.step)))
        self.writer.cut({}, {"step": self.step})
        self.writer.wait()


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[LeaseHolder]:
    with LeaseHolder(StateFolder(tmp_path)) as made:
        yield made


def test_a_follower_gives_a_snapshot_and_then_every_delta(holder: LeaseHolder) -> None:
    trainer, standby = Trainer(holder, keep=9, longest=2), Standby(holder.state)
    standby.take()
    assert standby.names == []
    for cut in range(5):
        trainer.cut()
        if cut in (1, 2, 4):
            standby.take()
            assert same(flat(standby.made), flat(trainer.made))
            standby.restart()
    # What leads to the newest is taken: of the versions before its snapshot none is.
    assert standby.names == ["resume-1", "resume-2", "resume-3", "resume-4", "resume-5"]
    late = Standby(holder.state)
    late.take()
    assert late.names == ["resume-4", "resume-5"]
    assert same(flat(late.made), flat(trainer.made))
    late.take()
    assert late.names == ["resume-4", "resume-5"]


def test_files_that_are_collected_while_they_are_read(holder: LeaseHolder) -> None:
    """Between the look at the newest chain and each file of it the writer may have gone on."""
    trainer = Trainer(holder, keep=1, longest=1)
    trainer.cut()
    trainer.cut()
    left = 3

    def slow(state: StateFolder, manifest: Manifest) -> Contents:
        nonlocal left
        for _ in range(2 if left else 0):
            trainer.cut()
        left -= bool(left)
        return contents(state, manifest)

    standby = Standby(holder.state, read=slow)
    standby.take()
    assert left == 0
    assert same(flat(standby.made), flat(trainer.made))
    assert len(standby.names) <= 3


def test_a_follower_that_is_always_too_slow_says_so(holder: LeaseHolder) -> None:
    trainer = Trainer(holder, keep=1, longest=0)
    trainer.cut()

    def too_slow(state: StateFolder, manifest: Manifest) -> Contents:
        trainer.cut()
        return contents(state, manifest)

    with pytest.raises(StateError, match="resume versions are removed faster than they are read"):
        list(Follower(holder.state, "resume", read=too_slow).poll())


def test_what_was_not_taken_over_is_given_again(holder: LeaseHolder) -> None:
    trainer, standby = Trainer(holder, keep=9), Standby(holder.state)
    trainer.cut()
    trainer.cut()
    for version in standby.follower.poll():
        standby.take_over(version)
        break
    with pytest.raises(RuntimeError):
        for version in standby.follower.poll():
            if not version.is_snapshot:
                raise RuntimeError("no room")
    standby.take()
    assert standby.names == ["resume-1", "resume-2"]
    assert same(flat(standby.made), flat(trainer.made))


def test_a_damaged_version_is_named_once_and_the_next_snapshot_followed(holder: LeaseHolder) -> None:
    state = holder.state
    trainer, standby = Trainer(holder, keep=9, longest=3), Standby(state)
    for _ in range(3):
        trainer.cut()
    path = state.folder.path(state.file(state.manifest("resume", 2), "grows.rows.0.arrow"))
    raw = bytearray(path.read_bytes())
    raw[-100] ^= 1
    path.write_bytes(raw)
    for newest in (3, 4):
        with pytest.raises(StateError, match=r"grows\.rows\.0\.arrow: is damaged"):
            standby.take()
        standby.take()
        assert standby.names[-1] == "resume-1"
        assert not standby.follower.wait(0.0)
        if newest == 3:
            trainer.cut()
    trainer.cut()
    assert standby.follower.wait(0.0)
    standby.take()
    assert standby.names[-1] == "resume-5"
    assert same(flat(standby.made), flat(trainer.made))


def test_a_manifest_that_cannot_be_read_or_is_missing(holder: LeaseHolder) -> None:
    state = holder.state
    trainer, standby = Trainer(holder, keep=9), Standby(state)
    for _ in range(3):
        trainer.cut()
    place = state.folder.path("manifests/resume-0000000003.json")
    raw = place.read_bytes()
    place.write_bytes(raw[:-9])
    with pytest.raises(StateError, match=r"resume-0000000003\.json: is damaged"):
        standby.take()
    place.write_bytes(raw)
    state.folder.path("manifests/resume-0000000002.json").rename(state.folder.root / "aside")
    with pytest.raises(StateError, match="there is no version resume-2"):
        standby.take()
    assert standby.names == []


def test_a_version_that_was_taken_back_and_written_anew_is_another_one(holder: LeaseHolder) -> None:
    """A user removed the newest manifest; its number is given again."""
    state = holder.state
    trainer, standby = Trainer(holder, keep=9), Standby(state)
    for _ in range(3):
        trainer.cut()
    standby.take()
    before = standby.position
    state.folder.path("manifests/resume-0000000003.json").unlink()
    again = Trainer(holder, keep=9, consumer="another")
    again.made.load([contents(state, m) for m in state.chain("resume", 2)][:1])
    for _ in range(2):
        again.cut()
    standby.take()
    assert standby.position != before
    assert same(flat(standby.made), flat(again.made))


def test_a_compacted_chain_is_not_read_again(tmp_path: Path) -> None:
    state = StateFolder(tmp_path)
    standby, late = Standby(state), Standby(state)
    with LeaseHolder(state) as holder:
        trainer = Trainer(holder, keep=9)
        for _ in range(3):
            trainer.cut()
        standby.take()
        version = compact(holder, "resume", keep=1).version
        assert not standby.follower.wait(0.0)
        standby.take()
        late.take()
        trainer.writer.go_on_from([version])
        trainer.cut()
    standby.restart()
    standby.take()
    late.take()
    assert standby.names == ["resume-1", "resume-2", "resume-3", "resume-5"]
    assert late.names == ["resume-4", "resume-5"]
    for one in (standby, late):
        assert same(flat(one.made), flat(trainer.made))


def _behind(holder: LeaseHolder, snapshots: int = 2) -> tuple[Trainer, Standby]:
    """A standby with the first version, of a chain that goes on over snapshots with the content of a delta."""
    trainer, standby = Trainer(holder, keep=99), Standby(holder.state)
    trainer.made.set("counts", torch.arange(3000), torch.ones(3000, 8))
    trainer.cut()
    standby.take()
    for _ in range(snapshots):
        trainer.cut(trains=False)  # a small delta
        trainer.writer.go_on_from([compact(holder, "resume", keep=99).version])
    trainer.cut(trains=False)
    return trainer, standby


def test_deltas_are_taken_in_the_place_of_a_snapshot_that_says_the_same(holder: LeaseHolder) -> None:
    trainer, standby = _behind(holder)
    assert [holder.state.manifest("resume", n).parent for n in range(1, 7)] == [None, 1, None, 3, None, 5]
    standby.take()
    assert standby.names == ["resume-1", "resume-2", "resume-4", "resume-6"]
    assert same(flat(standby.made), flat(trainer.made))
    assert standby.follower.folder == holder.state.manifest("resume", 6).folder


@pytest.mark.parametrize("what", ["removed", "damaged"])
def test_a_snapshot_is_read_where_deltas_to_it_are_lost(holder: LeaseHolder, what: str) -> None:
    trainer, standby = _behind(holder)
    lost = holder.state.manifest("resume", 4)
    if what == "removed":
        holder.state.folder.remove("manifests/resume-0000000004.json")
    else:
        file = Path(str(holder.state.folder.path(holder.state.file(lost, "grows.rows.0.arrow"))))
        file.write_bytes(file.read_bytes()[:-1])
    standby.take()
    assert standby.names == ["resume-1", *(["resume-2"] if what == "damaged" else []), "resume-5", "resume-6"]
    assert same(flat(standby.made), flat(trainer.made))


def test_many_deltas_are_not_taken_in_the_place_of_a_smaller_snapshot(holder: LeaseHolder) -> None:
    trainer, standby = _behind(holder, snapshots=0)
    for row in range(1, 5):
        trainer.made.set("counts", torch.arange(3000), torch.full((3000, 8), float(row)))
        trainer.cut(trains=False)
    compact(holder, "resume", keep=99)
    standby.take()
    assert standby.names == ["resume-1", "resume-7"]
    assert same(flat(standby.made), flat(trainer.made))


def test_two_purposes_side_by_side(holder: LeaseHolder) -> None:
    resume = Trainer(holder, keep=9)
    serving = VersionWriter(holder, "serving", resume.made, projection="weights", keep=9)
    standby, index = Standby(holder.state), dict[int, bytes]()
    follower = Follower(holder.state, "serving", read=contents)
    for cut in range(6):
        resume.cut()
        if cut % 2:
            serving.cut({}, {})
            serving.wait()
            for version in follower.poll():
                of = version.content["grows"]
                if version.is_snapshot:
                    index.clear()
                for key in of.tombstones.tolist():
                    index.pop(key, None)
                index |= {k: row.tobytes() for k, row in zip(of.keys.tolist(), of.columns["weight"], strict=True)}
        standby.take()
    assert same(flat(standby.made), flat(resume.made))
    content = resume.made.content()["grows"]
    assert index == {k: row.tobytes() for k, row in zip(content.keys.tolist(), content.columns["weight"], strict=True)}
    with pytest.raises(StateError, match="a position must be of serving, received"):
        Follower(holder.state, "serving", standby.position)


def test_the_example_in_the_documentation_runs(holder: LeaseHolder) -> None:
    config = CollisionlessTable(name="items", dim=2, optimizer=Sgd(learning_rate=0.1))
    made = Tables([config], [Feature(name="f", table="items", encoder=Identity())], seed=1)
    serving = VersionWriter(holder, "serving", made, projection="weights", keep=9)
    for step in range(3):
        made.set("items", torch.arange(step, step + 4), torch.rand(4, 2))
        made.delete("items", torch.tensor([step]))
        serving.cut({}, {})
    serving.close()
    _, example = re.findall(r"```python\n(.*?)```", DOCUMENTATION.read_text(), re.DOTALL)
    found: dict[str, Any] = {"path": holder.state.folder.root, "stored": made.stored}
    exec(compile(example.replace("wait(1.0)", "wait(0.0)"), DOCUMENTATION.name, "exec"), found)
    content = made.content()["items"]
    assert sorted(found["rows"]) == sorted(content.keys.tolist()) == [3, 4, 5]
    for key, row in zip(content.keys.tolist(), content.columns["weight"], strict=True):
        assert found["rows"][key].tobytes() == row.tobytes()
    assert found["position"]["sequence"] == 3


@pytest.mark.parametrize("position", [{}, {"purpose": "resume"}, {"purpose": "resume", "folder": 3}, [], "resume-3"])
def test_a_position_that_is_none_is_refused(tmp_path: Path, position: Any) -> None:
    with pytest.raises(StateError, match="a position must "):
        Follower(StateFolder(tmp_path), "resume", position)


def test_without_a_reader_every_file_is_verified(holder: LeaseHolder) -> None:
    trainer = Trainer(holder, keep=9)
    trainer.cut()
    follower = Follower(holder.state, "resume")
    assert [(v.manifest.name, v.content) for v in follower.poll()] == [("resume-1", None)]
    trainer.cut()
    state, version = holder.state, holder.state.manifest("resume", 2)
    state.folder.path(state.file(version, "tables.safetensors")).write_bytes(b"")
    with pytest.raises(StateError, match=r"tables\.safetensors: is damaged"):
        list(follower.poll())


FOLLOW = """
import sys
from pathlib import Path
from embtables.state.folder.version_folder import StateFolder
from embtables.state.read.follower import Follower
from embtables.state.read.version_reader import read_version
from tests.faults.driver import STORED
read = lambda state, manifest: read_version(state, manifest, STORED)
print(sum(1 for version in Follower(StateFolder(Path(sys.argv[1])), "resume", read=read).poll()))
assert "torch" not in sys.modules
"""


def driven(folder: Path, steps: int) -> subprocess.Popen[bytes]:
    """The trainer of the fault tests, in a process of its own."""
    return subprocess.Popen(kills.command(folder, steps), stdout=subprocess.DEVNULL)


def test_a_follower_takes_no_torch(tmp_path: Path) -> None:
    assert driven(tmp_path, 5).wait() == 0
    done = subprocess.run([sys.executable, "-c", FOLLOW, tmp_path], capture_output=True, text=True, check=True)
    assert int(done.stdout) == 3  # versions 3 to 5: a snapshot and two deltas


def undisturbed(steps: int) -> list[TrainedTable]:
    rows, found = TrainedTable(), [TrainedTable()]
    for _ in range(steps):
        rows.train()
        again = TrainedTable()
        again.apply(rows.content(whole=True))
        found.append(again)
    return found


def test_a_writer_that_is_killed_at_any_moment(tmp_path: Path) -> None:
    """Each version that the follower gives is one that the writer had, to the last."""
    steps, expected, rng = 120, undisturbed(120), random.Random(7)
    state, rows = StateFolder(tmp_path), TrainedTable()
    follower = Follower(state, "resume", read=lambda s, m: read_version(s, m, STORED).tables["t"])
    position: dict[str, Any] | None = None
    killed = 0
    process, dies = driven(tmp_path, steps), rng.randint(1, 12)
    seen = 0
    try:
        while rows.step < steps:
            follower.wait(0.05)
            for version in follower.poll():
                if version.is_snapshot:
                    rows = TrainedTable()
                rows.apply(version.content)
                assert_same(rows, expected[rows.step])
                position, seen = json.loads(json.dumps(version.position)), seen + 1
            if seen >= dies and killed < 6 and process.poll() is None:
                process.send_signal(signal.SIGKILL)
                seen, dies, killed = 0, rng.randint(1, 12), killed + 1
                follower = Follower(state, "resume", position, read=lambda s, m: read_version(s, m, STORED).tables["t"])
            if process.poll() is not None and rows.step < steps:
                process = driven(tmp_path, steps)
    finally:
        process.kill()
        process.wait()
    assert killed == 6
    assert_same(rows, expected[steps])


acts = st.lists(
    st.sampled_from(["cut", "cut", "cut", "follow", "follow", "restart", "compact", "break", "snapshot"]), max_size=16
)


@given(acts, st.integers(0, 4), st.integers(1, 3))
@settings(max_examples=25, deadline=None)
def test_after_following_the_standby_has_what_the_writer_has(history: list[str], longest: int, keep: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("embtables.state.folder.local_folder.os.fsync", lambda handle: None)  # no power is lost here
        with LeaseHolder(StateFolder(Path(folder))) as holder:
            trainer, standby = Trainer(holder, keep=keep, longest=longest), Standby(holder.state)
            for act in history:
                if act == "cut":
                    trainer.cut()
                elif act == "snapshot":
                    trainer.writer._parent = None
                    trainer.cut()
                elif act == "restart":
                    standby.restart()
                elif act == "compact" and trainer.step:
                    trainer.writer.go_on_from([compact(holder, "resume", keep=keep).version])
                elif act == "break":
                    for version in standby.follower.poll():
                        standby.take_over(version)
                        break
                elif act == "follow":
                    standby.take()
                    assert not trainer.step or same(flat(standby.made), flat(trainer.made))
            trainer.cut()
            standby.take()
            assert same(flat(standby.made), flat(trainer.made))
            trainer.writer.close()
    torch.set_num_threads(before)

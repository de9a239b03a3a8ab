"""Compaction: the snapshot holds what the chain did, bit for bit, and nothing of what the chain had lost."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchrec import KeyedJaggedTensor

from embtables import CollisionlessTable, EmbeddingBagCollection, Feature, Tables
from embtables.errors import StateError
from embtables.keyspace import bucket_order, table_seed
from embtables.rows.content import TableContent
from embtables.rows.stored_table import StoredTable
from embtables.schema import Adam, Identity, MinCount, RowwiseAdagrad, Sgd
from embtables.state.folder.version_folder import LeaseHolder, StateFolder, VersionKind
from embtables.state.format.version import Version
from embtables.state.read import merge
from embtables.state.read.load import load as load_version
from embtables.state.tools.compact import Compacted, compact
from embtables.state.write.commit_across_ranks import write_version
from embtables.state.write.version_writer import VersionWriter
from tests.contents import Arrays, flat, same
from tests.state.test_chain import failing
from tests.state.versions_for_tests import FIXED, GROWS, open_chain, tables, train, write


def loaded(state: StateFolder, made: Tables, sequence: int) -> Arrays:
    load_version(state, state.chain("resume", sequence), made)
    return flat(made)


def compacted(state: StateFolder, keep: int = 1) -> Compacted:
    with LeaseHolder(state) as writer:
        return compact(writer, "resume", keep=keep)


@pytest.mark.parametrize("rows_at_a_time", [1, 7, 1 << 20])
def test_the_snapshot_is_the_one_that_the_tables_would_have_written(
    tmp_path: Path, rows_at_a_time: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """File by file, byte for byte; whatever fits in memory at once."""
    monkeypatch.setattr(merge, "KEYS_AT_A_TIME", rows_at_a_time)
    made, versions = write(tmp_path, 5)
    assert [v.parent for v in versions] == [None, 1, 2, 3, 4]
    assert any(".tombstones." in name for v in versions for name in v.files)
    state = StateFolder(tmp_path)
    with open_chain(state, made, keep=100) as chain:
        chain.cut({"dense": np.arange(4, 8.0)}, {"schema": {"a": 1}, "step": 4})
    direct = state.manifest("resume", 6)
    (state.folder.root / "manifests" / "resume-0000000006.json").unlink()
    assert direct.parent is None
    done = compacted(state)
    assert done.version.sequence == 6
    assert done.version.files == direct.files
    assert done.version.tables == direct.tables
    assert done.version.content == versions[-1].content
    assert state.sequences("resume") == [6]
    assert same(loaded(state, tables(), 6), flat(made))
    assert [p.name for p in sorted((tmp_path / "versions").iterdir())] == [done.version.folder]


def test_training_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    write(tmp_path, 3)
    state = StateFolder(tmp_path)
    compacted(state)
    made = tables()
    chain_now = state.chain("resume", 4)
    assert len(chain_now) == 1
    version = load_version(state, chain_now, made)
    assert version.content["step"] == 2
    assert version.tensors["dense"].tolist() == [2, 3, 4, 5]
    with open_chain(state, made) as chain:
        chain.go_on_from(chain_now[-1:])
        train(made, range(15, 20))
        chain.cut({}, {})
    assert [state.manifest("resume", n).parent for n in state.sequences("resume")] == [None, 4]
    whole, _ = write(tmp_path / "whole", 4)
    assert same(loaded(state, tables(), 5), flat(whole))
    compacted(state)
    assert same(loaded(state, tables(), 6), flat(whole))


def test_a_snapshot_is_not_written_again(tmp_path: Path) -> None:
    write(tmp_path, 3, longest=1)
    state = StateFolder(tmp_path)
    assert state.manifest("resume", 3).parent is None
    done = compacted(state)
    assert done.version.sequence == 3
    assert done.freed_bytes > 0
    assert state.sequences("resume") == [3]


def test_older_versions_are_kept_as_asked(tmp_path: Path) -> None:
    write(tmp_path, 3)
    compacted(StateFolder(tmp_path), keep=2)
    assert StateFolder(tmp_path).sequences("resume") == [1, 2, 3, 4]
    compacted(StateFolder(tmp_path), keep=1)
    assert StateFolder(tmp_path).sequences("resume") == [4]


def test_a_pin_of_what_was_compacted_moves_and_others_are_named(tmp_path: Path) -> None:
    _, versions = write(tmp_path, 3)
    state = StateFolder(tmp_path)
    with LeaseHolder(state) as writer:
        writer.pin("best", versions[1])
        writer.pin("last", versions[2])
    done = compacted(state)
    assert done.pins == {"best": "resume-2"}
    assert state.pinned("best") == ("resume", 2)
    assert state.pinned("last") == ("resume", 4)
    assert state.sequences("resume") == [1, 2, 4]


def erased_traces(folder: Path, key: int, weight: np.ndarray) -> list[str]:
    """Files that hold the key or any two neighbouring values of its row."""
    wanted = [np.int64(key).tobytes(), weight[:2].tobytes(), weight[2:4].tobytes()]
    files = [file for file in folder.rglob("*") if file.is_file()]
    return [str(file.relative_to(folder)) for file in files if any(w in file.read_bytes() for w in wanted)]


def test_nothing_of_an_erased_key_is_left_on_the_disk(tmp_path: Path) -> None:
    key = 0x5EED_0123_4567_89AB
    config = CollisionlessTable(
        name="t", dim=4, optimizer=Adam(learning_rate=0.1), admission=MinCount(count=1), cold_row="trained"
    )
    made = Tables([config], [Feature(name="f", table="t", encoder=Identity())], seed=1)
    state, row = StateFolder(tmp_path), torch.tensor([[0.123456, -7.654321, 3.1415926, 2.7182818]])
    others = torch.arange(50)
    with LeaseHolder(state) as writer:
        chain = VersionWriter(writer, "resume", made, keep=100)
        made.set("t", others, torch.rand(50, 4))
        made.set("t", torch.tensor([key]), row)
        chain.cut({}, {})
        chain.wait()
        writer.pin("best", state.manifest("resume", 1))
        made.set("t", others[:9], torch.rand(9, 4))
        chain.cut({}, {})
        made.delete("t", torch.tensor([key]))
        chain.cut({}, {})
        chain.wait()
        chain.close()
    assert len(erased_traces(tmp_path, key, row.numpy()[0])) >= 2  # its row, and its tombstone
    done = compacted(state)
    assert done.pins == {"best": "resume-1"}
    left = erased_traces(tmp_path, key, row.numpy()[0])
    assert left
    assert all(name.startswith("versions/resume-0000000001-") for name in left)
    with LeaseHolder(state) as writer:
        writer.pin("best", done.version)
    assert compacted(state).pins == {}
    assert erased_traces(tmp_path, key, row.numpy()[0]) == []
    again = Tables([config], [made.features[0].feature], seed=1)
    assert same(loaded(state, again, 4), flat(made))


def test_while_another_process_trains_it_is_refused(tmp_path: Path) -> None:
    write(tmp_path, 2)
    state = StateFolder(tmp_path)
    with LeaseHolder(StateFolder(tmp_path)), pytest.raises(StateError, match="is being written by process"):
        compacted(state)
    assert state.sequences("resume") == [1, 2]


@pytest.mark.parametrize("name", ["fixed.rows.0.arrow", "grows.tombstones.0.arrow", "dense.safetensors"])
def test_a_damaged_version_is_not_folded(tmp_path: Path, name: str) -> None:
    _, versions = write(tmp_path, 3)
    state = StateFolder(tmp_path)
    version = [v for v in versions if name in v.files][-1]
    path = tmp_path / "versions" / version.folder / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    before = sorted(p.name for p in (tmp_path / "versions").iterdir())
    with pytest.raises(StateError, match=name):
        compacted(state)
    assert state.sequences("resume") == [1, 2, 3]
    assert sorted(p.name for p in (tmp_path / "versions").iterdir()) == before


@pytest.mark.parametrize("call", ["write", "fsync", "link", "mkdir"])
def test_a_disk_that_fails_leaves_the_chain_as_it_was(
    tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, _ = write(tmp_path, 3)
    state = StateFolder(tmp_path)
    with LeaseHolder(state) as writer:
        with monkeypatch.context() as patch:
            fired = failing(patch, call, errno.ENOSPC, 1)
            with pytest.raises(StateError, match="No space left on device; earlier versions are intact"):
                compact(writer, "resume", keep=1)
            assert fired
        assert state.sequences("resume") == [1, 2, 3]
        compact(writer, "resume", keep=1)
    assert state.sequences("resume") == [4]
    assert len(list((tmp_path / "versions").iterdir())) == 1
    assert same(loaded(state, tables(), 4), flat(made))


def test_no_room_for_what_is_selected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write(tmp_path, 2)
    monkeypatch.setattr(merge, "_write_all", full)
    with pytest.raises(StateError, match="cannot hold a temporary file: No space left on device"):
        compacted(StateFolder(tmp_path))
    assert StateFolder(tmp_path).sequences("resume") == [1, 2]
    assert not [p for p in tmp_path.iterdir() if p.name.startswith("tmp")]


def test_without_versions(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="there is no resume version"):
        compacted(StateFolder(tmp_path))


def test_a_row_in_the_version_of_its_tombstone_stays(tmp_path: Path) -> None:
    """As tables load it: what is gone goes first, then rows are placed."""
    stored = (StoredTable(CollisionlessTable(name="t", dim=1, optimizer=Sgd(learning_rate=0.1)), table_seed(1, "t")),)
    state = StateFolder(tmp_path)
    with LeaseHolder(state) as writer:
        for number, (keys, gone) in enumerate([([1, 2, 3, 4], []), ([2], [2, 3]), ([3], [4])]):
            rows = np.array(keys, np.int64)
            rows = rows[bucket_order(rows, stored[0].seed)]
            columns, ones = {"weight": np.full((len(rows), 1), number, np.float32)}, np.ones(len(rows), np.uint32)
            cold = {"weight": np.zeros((1, 1), np.float32)}
            content = TableContent(rows, columns, ones, ones, np.array(gone, np.int64), cold=cold)
            write_version(writer, VersionKind("resume", number or None), stored, Version({"t": content}))
        made = [Tables([stored[0].config], [Feature(name="f", table="t")], seed=1) for _ in range(2)]
        before = loaded(state, made[0], 3)
        compact(writer, "resume", keep=1)
    assert same(loaded(state, made[1], 4), before)
    found = made[1].content()["t"]
    assert dict(zip(found.keys.tolist(), found.columns["weight"][:, 0], strict=True)) == {1: 0, 2: 1, 3: 2}


MEMORY = r"""
import re, sys
from pathlib import Path
from embtables.state.tools.compact import compact
from embtables.state.tools.compare import compare_rows
from embtables.state.read.merge import MergedTable
from embtables.state.folder.version_folder import StateFolder, VersionKind, LeaseHolder
from embtables.pipelines.state_tools.commands import export
state = StateFolder(Path(sys.argv[1]))
def peak():  # not ru_maxrss, which begins with what the parent of the process had
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) << 10
before = peak()
chains = [state.chain("resume", number) for number in (1, 2)]
with MergedTable(state, chains[0], "t") as first, MergedTable(state, chains[1], "t") as second:
    print(compare_rows(first, second).changed)
with LeaseHolder(state) as writer:
    compact(writer, "resume", keep=1)
print(export(state, "t", Path(sys.argv[1]) / "t.parquet", None)["rows"])
print(peak() - before)
"""


def test_memory_does_not_grow_with_the_table(tmp_path: Path) -> None:
    """Compared, compacted and exported, all of 400,000 rows of 600 bytes: 240 MB, and half of them once more."""
    table = CollisionlessTable(name="t", dim=144, optimizer=RowwiseAdagrad(learning_rate=0.1))
    keys = np.random.default_rng(0).integers(-(2**63), 2**63, 400_000)
    keys = keys[bucket_order(keys, 1)]
    with LeaseHolder(StateFolder(tmp_path)) as writer:
        for number, part in enumerate((keys, keys[::2])):
            n, ones = len(part), np.ones(len(part), np.uint32)
            columns = {"weight": np.full((n, 144), number, np.float32), "sum": np.zeros(n, np.float32)}
            cold = {"weight": np.zeros((1, 144), np.float32), "sum": np.zeros(1, np.float32)}
            version = Version({"t": TableContent(part, columns, ones, ones, cold=cold)})
            write_version(writer, VersionKind("resume", number or None), [StoredTable(table, 1)], version)
    done = subprocess.run([sys.executable, "-c", MEMORY, tmp_path], capture_output=True, text=True, check=True)
    changed, rows, grown = map(int, done.stdout.split())
    assert (changed, rows) == (200_000, 400_000)
    assert grown < 200_000_000


CONFIGS = [
    FIXED.model_copy(update={"dim": 2, "num_rows": 12}),
    GROWS.model_copy(update={"max_rows": 9, "ttl_seconds": 40}),
]


def small_tables() -> Tables:
    features = [Feature(name=f"f{n}", table=c.name, encoder=Identity()) for n, c in enumerate(CONFIGS)]
    return Tables(CONFIGS, features, seed=4)


class History:
    """A trainer that does what a test asks, and whose versions are compacted now and then."""

    def __init__(self, writer: LeaseHolder) -> None:
        self.made, self.writer, self.seconds = small_tables(), writer, 0
        self.view = EmbeddingBagCollection.over(self.made)
        self.state, self.chain = writer.state, VersionWriter(writer, "resume", self.made, keep=100, longest=100)

    def step(self, ids: list[int]) -> None:
        self.seconds += 7 * len(ids)
        self.made.advance(torch.full((len(ids),), self.seconds * 1_000_000))
        keys = torch.tensor([i % 12 for i in ids] + ids)
        one_each = torch.ones(len(keys), dtype=torch.int64)
        out = self.view(KeyedJaggedTensor(["f0", "f1"], keys, lengths=one_each)).values()
        out.backward(torch.linspace(-1, 1, out.numel()).reshape(out.shape))
        self.made.step()

    def set(self, ids: list[int]) -> None:
        rows = torch.linspace(0, 1, 3 * len(set(ids))).reshape(-1, 3)
        self.made.set("grows", torch.tensor(sorted(set(ids))), rows)

    def delete(self, ids: list[int]) -> None:
        self.made.delete("grows", torch.tensor(ids))
        self.made.delete("fixed", torch.tensor([i % 12 for i in ids[:1]]))

    def cut(self, ids: list[int]) -> None:
        self.chain.cut({"x": np.array([self.seconds])}, {"seconds": self.seconds})
        self.chain.wait()

    def compact(self, ids: list[int]) -> None:
        """The same is read before and after, by new tables."""
        self.cut(ids)
        number = self.state.sequences("resume")[-1]
        expected = loaded(self.state, small_tables(), number)
        done = compact(self.writer, "resume", keep=1)
        assert self.state.sequences("resume") == [done.version.sequence]
        assert same(loaded(self.state, small_tables(), done.version.sequence), expected)
        assert same(flat(self.made), expected)
        self.chain.go_on_from([done.version])


ids_of_a_step = st.lists(st.integers(0, 20), min_size=1, max_size=6)
acts = st.sampled_from(["step", "step", "step", "set", "delete", "cut", "cut", "compact"])


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Tables this small gain nothing by threads that wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
@given(st.lists(st.tuples(acts, ids_of_a_step), min_size=8, max_size=30))
@settings(max_examples=20, deadline=None)
def test_any_history_is_the_same_after_compaction(history: list[tuple[str, list[int]]]) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("embtables.state.folder.local_folder.os.fsync", lambda handle: None)  # no power is lost here
        with LeaseHolder(StateFolder(Path(folder))) as writer:
            made = History(writer)
            for act, ids in [*history, ("compact", [])]:
                getattr(made, act)(ids)
            made.chain.close()

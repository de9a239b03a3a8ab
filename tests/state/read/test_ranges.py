"""Reading a range of buckets: only the blocks it takes, each verified; nothing else of the file matters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embtables import CollisionlessTable, Tables
from embtables.errors import StateError
from embtables.keyspace import Buckets, bucket_order
from embtables.rows.content import TableContent, restrict
from embtables.rows.stored_table import StoredTable
from embtables.schema import RowwiseAdagrad
from embtables.state.folder.local_folder import LocalFolder
from embtables.state.folder.version_folder import LeaseHolder, StateFolder, VersionKind
from embtables.state.format.checksums import BLOCK, Digests
from embtables.state.format.manifest import Manifest
from embtables.state.format.version import Version
from embtables.state.read.version_reader import read_version
from embtables.state.write.commit_across_ranks import write_version
from tests.contents import Arrays, flat_content, same
from tests.state.versions_for_tests import write

STORED = StoredTable(CollisionlessTable(name="t", dim=64, optimizer=RowwiseAdagrad(learning_rate=0.1)), 7)
ROWS = 100_000
FILE = "t.rows.0.arrow"


def content() -> TableContent:
    """Rows of some 27 MB."""
    rng = np.random.default_rng(1)
    keys = rng.integers(-(2**62), 2**62, ROWS)
    keys = keys[bucket_order(keys, STORED.seed)]
    columns = {"weight": rng.random((ROWS, 64), np.float32), "sum": rng.random(ROWS, np.float32)}
    cold = {"weight": np.zeros((1, 64), np.float32), "sum": np.zeros(1, np.float32)}
    figures = [rng.integers(0, 2**32, ROWS, np.uint32) for _ in range(2)]
    return TableContent(keys, columns, *figures, cold=cold)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[StateFolder, Manifest]:
    state = StateFolder(tmp_path_factory.mktemp("state"))
    with LeaseHolder(state) as writer:
        return state, write_version(writer, VersionKind("resume"), [STORED], Version({"t": content()}))


class Counted(LocalFolder):
    """Records which bytes of a file were read."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.read_at: list[tuple[int, int]] = []

    def read_into(self, name: str, start: int, view: memoryview) -> int:
        if name.endswith(FILE):
            self.read_at.append((start, len(view)))
        return super().read_into(name, start, view)


@pytest.mark.parametrize("buckets", [(0, 1), (0, 100), (500, 501), (300, 512), (1023, 1024), (0, 1023), (0, 1024)])
def test_a_range_reads_its_blocks_alone(large: tuple[StateFolder, Manifest], buckets: Buckets) -> None:
    written, version = large
    state = StateFolder(written.folder.root)
    state.folder = folder = Counted(written.folder.root)
    expected = restrict(content(), STORED.seed, buckets)
    found = read_version(state, version, [STORED], buckets)
    assert same(flat_content(found.tables["t"]), flat_content(expected))
    assert len(expected.keys) > 0
    size, columns = version.files[FILE].bytes, 5
    needed = len(expected.keys) * (8 + 64 * 4 + 4 + 4 + 4)
    at_most = needed + 2 * columns * BLOCK
    total = sum(length for _, length in folder.read_at)
    blocks = [start // BLOCK + i for start, n in folder.read_at for i in range(-(-n // BLOCK))]
    assert needed <= total <= min(size, at_most)
    assert len(set(blocks)) == len(blocks)
    if buckets == (300, 512):
        assert total < size / 2


def test_damage_is_noticed_where_it_matters(large: tuple[StateFolder, Manifest]) -> None:
    """A block outside of what is read is not looked at; each block that is read is."""
    state, version = large
    path = state.folder.path(state.file(version, FILE))
    data = path.read_bytes()
    buckets = (300, 330)
    assert len(version.files[FILE].blocks) == -(-len(data) // BLOCK) > 4
    seen = []
    try:
        for block in range(len(version.files[FILE].blocks)):
            at = min(block * BLOCK + 1000, len(data) - 1)
            path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            with pytest.raises(StateError, match=FILE):
                state.verify(version)
            try:
                found = read_version(state, version, [STORED], buckets)
            except StateError as error:
                assert f"{FILE}: is damaged: the checksum of its block {block} is not the one recorded" in str(error)
                seen.append(block)
            else:
                expected = restrict(content(), STORED.seed, buckets)
                assert same(flat_content(found.tables["t"]), flat_content(expected))
    finally:
        path.write_bytes(data)
    assert seen[0] == 0
    assert seen[-1] == len(version.files[FILE].blocks) - 1
    assert len(seen) < len(version.files[FILE].blocks)


REGIONS = 24


@pytest.mark.parametrize("owned", [(0, 340), (700, 1024)])
def test_any_damage_to_a_file_is_refused_or_without_effect(
    tmp_path: Path, owned: Buckets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With blocks of 64 bytes, so that all of a file's regions are blocks of their own."""
    monkeypatch.setattr("embtables.state.format.checksums.BLOCK", 64)
    made, _ = write(tmp_path, 2)
    state, outcomes = StateFolder(tmp_path), set()
    for version in state.chain("resume", 2):
        whole = read(state, version, made, owned)
        for name in version.files:
            path = state.folder.path(state.file(version, name))
            data = path.read_bytes()
            for at in np.linspace(0, len(data) - 1, REGIONS).astype(int).tolist():
                path.write_bytes(data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :])
                try:
                    found = read(state, version, made, owned)
                except StateError as error:
                    assert name in str(error)
                    outcomes.add((name.split(".")[-1], "refused"))
                else:
                    assert same(found, whole)
                    outcomes.add((name.split(".")[-1], "without effect"))
            for raw in (data[: len(data) // 2], data + b"\0"):
                path.write_bytes(raw)
                with pytest.raises(StateError, match=name):
                    read(state, version, made, owned)
            path.write_bytes(data)
    assert outcomes == {("arrow", "refused"), ("arrow", "without effect"), ("safetensors", "refused")}


def read(state: StateFolder, version: Manifest, made: Tables, owned: Buckets) -> Arrays:
    contents = read_version(state, version, made.stored, owned).tables
    return {f"{t}/{name}": values for t, content in contents.items() for name, values in flat_content(content).items()}


def test_files_have_the_checksums_of_their_blocks() -> None:
    """Part of the format: where blocks end, and that a file of one block has none."""
    block = BLOCK
    assert block == 1024 * 1024
    for size, count in ((0, 0), (1, 0), (block, 0), (block + 1, 2), (2 * block, 2), (2 * block + 5, 3)):
        raw = np.arange(size, dtype=np.uint32).astype(np.uint8).tobytes()
        found = []
        for piece in (1 << 30, block, 1_000_003):
            digests = Digests()
            for at in range(0, size, piece):
                digests.update(raw[at : at + piece])
            found.append(digests.written())
        assert found[0] == found[1] == found[2]
        assert len(found[0].blocks) == count
        for number, checksum in enumerate(found[0].blocks):
            alone = Digests()
            alone.update(raw[number * block : (number + 1) * block])
            assert alone.written().xxh3 == checksum

"""State made to harm: refused, in bounded time and memory, with the reason."""

from __future__ import annotations

import io
import json
import os
import pickle
import resource
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from embtables.errors import StateError
from embtables.keyspace import bucket_offsets, table_seed
from embtables.rows.row_format import RowFormat
from embtables.state.folder.version_folder import LeaseHolder, StateFolder, VersionKind
from embtables.state.format import manifest as manifests
from embtables.state.format.arrow_writer import OFFSETS
from embtables.state.format.checksums import Digests
from embtables.state.format.table_files import WAITING_SCHEMA, rows_schema
from embtables.state.read.load import load as load_version
from embtables.state.read.version_reader import read_version
from embtables.state.tools.compact import compact
from embtables.state.write.commit_across_ranks import commit
from embtables.state.write.rank_files import RankFiles
from tests.state.versions_for_tests import tables, write

LIMIT = 256 << 20  # bytes of memory that a refusal may take at most


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, 3)
    return tmp_path


def rewrite(folder: Path, sequence: int, change: dict[str, Any] | Any) -> None:
    """Gives a manifest other fields and the right checksum: only its content can give it away."""
    path = folder / "manifests" / f"resume-{sequence:010d}.json"
    fields = json.loads(path.read_bytes())
    del fields["checksum"]
    if callable(change):
        change(fields)
    else:
        fields.update(change)
    path.write_bytes(manifests.encode(fields))


def refusal(folder: Path) -> str:
    state = StateFolder(folder)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(StateError) as raised:
        load_version(state, state.chain("resume", 3), tables())
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < LIMIT
    return str(raised.value)


@pytest.mark.parametrize("name", ["../elsewhere", "/etc", "a/b", "..", ".", "", "a\0b"])
def test_names_that_lead_elsewhere(folder: Path, name: str) -> None:
    rewrite(folder, 3, {"folder": name})
    assert "folder: String should match pattern" in refusal(folder)
    rewrite(folder, 3, {"folder": "x", "files": {name: {"bytes": 1, "xxh3": "0" * 32}}})
    assert "String should match pattern" in refusal(folder)


def test_a_size_of_2_to_the_60(folder: Path) -> None:
    def grow(fields: dict[str, Any]) -> None:
        fields["files"]["grows.rows.0.arrow"] |= {"bytes": 2**60, "rows": 2**50}

    rewrite(folder, 3, grow)
    assert "its 1,152,921,504,606,846,976 bytes need 1,099,511,627,776" in refusal(folder)
    rewrite(folder, 3, lambda fields: fields["files"]["grows.rows.0.arrow"].update(bytes=1 << 20))
    assert "not the 1,048,576 recorded" in refusal(folder)


def test_rows_beyond_the_file(folder: Path) -> None:
    rewrite(folder, 3, lambda fields: fields["files"]["grows.rows.0.arrow"].update(rows=2**50))
    assert "grows.rows.0.arrow: has" in refusal(folder)


@pytest.mark.parametrize("parent", [3, 4, 1, 2**40, -1, 0, True, "2", 1.5])
def test_parents_make_no_cycle(folder: Path, parent: Any) -> None:
    rewrite(folder, 3, {"parent": parent})
    assert "resume-0000000003.json: is not a valid manifest" in refusal(folder)


def test_a_file_in_place_of_a_manifest(folder: Path) -> None:
    path = folder / "manifests" / "resume-0000000003.json"
    deep = b"[" * 200_000
    for raw in (b"", b"\0" * 4096, b"{}", b"[]", b"null", b"\xff\xfe", deep, pickle.dumps({"a": 1})):
        path.write_bytes(raw)
        assert "is damaged" in refusal(folder)
    with path.open("wb") as file:
        file.truncate(1 << 40)
    assert "more than the" in refusal(folder)


def test_another_format(folder: Path) -> None:
    rewrite(folder, 3, {"format": 1})
    assert "has format 1, this build reads 0" in refusal(folder)


def test_what_a_version_holds_of_its_tables(folder: Path) -> None:
    rewrite(folder, 3, {"projection": "some"})
    assert "projection: Input should be 'full' or 'weights'" in refusal(folder)
    rewrite(folder, 3, {"projection": "full", "same_as": "resume-0000000002-00000000"})
    assert "is a delta; only a snapshot can be the same as another version" in refusal(folder)
    rewrite(folder, 3, lambda fields: fields.pop("same_as") and fields.update(projection="weights"))
    assert "resume-3 holds weights, its parent full: versions of one chain must have the same projection" in refusal(
        folder
    )
    state = StateFolder(folder)
    with pytest.raises(StateError, match=r"rows\.0\.arrow: holds other columns than the table"):
        read_version(state, state.manifest("resume", 3), tables().stored)


def replace_file(folder: Path, name: str, raw: bytes, rows: int | None) -> None:
    """Another file in its place, with the right length and checksum in the manifest."""
    version = StateFolder(folder).manifest("resume", 3)
    (folder / "versions" / version.folder / name).write_bytes(raw)

    def change(fields: dict[str, Any]) -> None:
        digests = Digests()
        digests.update(raw)
        file = asdict(digests.written())
        fields["files"][name] |= file | {"blocks": list(file["blocks"]), "rows": rows}

    rewrite(folder, 3, change)


COLUMNS = {"weight": True, "exp_avg": True, "exp_avg_sq": True}


def arrow(
    n: int, dim: int, options: pa.ipc.IpcWriteOptions | None = None, keys: Any = None, begins: Any = None
) -> bytes:
    """A rows file of zeros for the table `grows`."""
    schema = rows_schema(RowFormat(dim), COLUMNS, "full")
    columns: list[Any] = [pa.array(np.arange(n) if keys is None else keys, pa.int64())]
    flat = pa.array(np.zeros(n * dim, np.float32))
    columns += [pa.FixedSizeListArray.from_arrays(flat, type=schema.field(p).type) for p in COLUMNS]
    columns += [pa.array(np.zeros(n, np.uint32))] * 2
    return arrow_bytes(columns, schema, options, begins)


def arrow_bytes(
    columns: list[Any], schema: Any, options: pa.ipc.IpcWriteOptions | None = None, begins: Any = None
) -> bytes:
    """An Arrow file, by default with the offsets that its keys have."""
    if begins is None:
        begins = bucket_offsets(columns[0].to_numpy(), table_seed(3, "grows"))
    schema = schema.with_metadata({OFFSETS: np.asarray(begins).astype("<u8").tobytes()})
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, schema, options=options) as writer:
        writer.write_batch(pa.record_batch(columns, schema=schema))
    return sink.getvalue()


def test_a_compression_bomb(folder: Path) -> None:
    # A million times as large as its file.
    rows = 8_000_000
    raw = arrow(rows, 3, pa.ipc.IpcWriteOptions(compression="zstd"))
    assert len(raw) < 64 << 20
    replace_file(folder, "grows.rows.0.arrow", raw, rows)
    assert "is compressed, which this build never writes" in refusal(folder)


def test_arrow_files_of_another_shape(folder: Path) -> None:
    replace_file(folder, "grows.rows.0.arrow", arrow(2, 4), 2)
    assert "column weight is fixed_size_list" in refusal(folder)
    replace_file(folder, "grows.rows.0.arrow", arrow(0, 3), 5)
    assert "has 0 rows, the manifest says 5" in refusal(folder)
    replace_file(folder, "grows.rows.0.arrow", arrow(2, 3, keys=[7, 7]), 2)
    assert "key 7 comes twice or out of order" in refusal(folder)
    for raw in (b"ARROW1\0\0", b"", b"ARROW1\0\0" + bytes(500) + b"ARROW1", pickle.dumps([1])):
        replace_file(folder, "grows.rows.0.arrow", raw, 2)
        assert "grows.rows.0.arrow: is damaged" in refusal(folder)


def compaction_refusal(folder: Path) -> str:
    with LeaseHolder(StateFolder(folder)) as writer, pytest.raises(StateError) as raised:
        compact(writer, "resume", keep=1)
    assert StateFolder(folder).sequences("resume") == [1, 2, 3]
    return str(raised.value)


def test_files_of_another_shape_are_not_compacted(folder: Path) -> None:
    """Nothing that a table would not load becomes the only version there is."""
    said = "grows.rows.0.arrow: "
    for begins in (np.zeros(0), np.arange(1025)[::-1], np.arange(1025), np.full(1025, 2), np.full(1025, 2**63)):
        replace_file(folder, "grows.rows.0.arrow", arrow(2, 3, begins=begins), 2)
        assert f"{said}is damaged: its embtables.bucket_offsets are not those of 2 rows" in compaction_refusal(folder)
    begins = np.append(np.zeros(1024), 2)
    replace_file(folder, "grows.rows.0.arrow", arrow(2, 4, begins=begins), 2)
    assert "has other columns than" in compaction_refusal(folder)
    replace_file(folder, "grows.rows.0.arrow", arrow(2, 3, keys=[7, 7], begins=begins), 2)
    assert f"{said}key 7 comes twice or out of order" in compaction_refusal(folder)
    replace_file(folder, "grows.rows.0.arrow", arrow(2, 3, pa.ipc.IpcWriteOptions(compression="zstd")), 2)
    assert f"{said}is compressed" in compaction_refusal(folder)
    for raw in (b"", b"ARROW1\0\0", b"ARROW1\0\0" + bytes(500) + b"ARROW1"):
        replace_file(folder, "grows.rows.0.arrow", raw, 2)
        assert f"{said}is damaged" in compaction_refusal(folder)


def test_waiting_keys_that_contradict_the_rows(folder: Path) -> None:
    state, made = StateFolder(folder), tables()
    load_version(state, state.chain("resume", 3), made)
    keys = made.keys("grows")
    assert keys is not None
    for waiting, text in (([7, 7], "key 7 comes twice or out of order"), ([int(keys[0])], "waits and has a row")):
        columns = [pa.array(waiting, pa.int64()), *[pa.array(np.ones(len(waiting), np.uint32))] * 2]
        replace_file(folder, "grows.waiting.0.arrow", arrow_bytes(columns, WAITING_SCHEMA), len(waiting))
        assert text in refusal(folder)


def test_a_pickle_in_disguise(folder: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (folder / "owned",))

    replace_file(folder, "dense.safetensors", pickle.dumps(Evil()), None)
    assert "dense.safetensors: is damaged" in refusal(folder)
    assert not (folder / "owned").exists()


def test_a_version_of_other_tables(folder: Path) -> None:
    state = StateFolder(folder)
    other = tables(seed=4)
    with pytest.raises(StateError, match="comes twice or out of order: another seed wrote it"):
        load_version(state, state.chain("resume", 3), other)
    version = state.manifest("resume", 1)
    with pytest.raises(StateError, match="table counts: is not part of these tables"):
        read_version(state, version, tables().stored[:1])


def test_a_writer_that_lost_its_lease_cannot_commit(folder: Path) -> None:
    state = StateFolder(folder)
    kind = VersionKind("resume", parent=3)
    with LeaseHolder(state) as zombie:
        # Another machine, where this one's lock is not seen, took the lease over.
        zombie._folder.replace(
            "lease.json", json.dumps({"epoch": zombie.lease_number + 1, "holder": "another"}).encode()
        )
        with pytest.raises(StateError, match="has lost the lease"):
            commit(zombie, kind, lambda: RankFiles({}, {}), {})
        with pytest.raises(StateError, match="has lost the lease"):
            zombie.collect({"resume": 1})
    assert state.sequences("resume") == [1, 2, 3]
    # Should it come through all the same, readers see that its lease number is lower than its parent's.
    rewrite(folder, 2, {"writer": 99})
    assert "resume-3 was written under a lost lease" in refusal(folder)


HOLD = """
import sys
from dataclasses import asdict
from pathlib import Path
from embtables.state.folder.version_folder import StateFolder, LeaseHolder
with LeaseHolder(StateFolder(Path(sys.argv[1]))):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_writers_at_once_and_the_lease_of_a_dead_one(tmp_path: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(StateError, match=rf"is being written by process {other.pid} on"):
            LeaseHolder(StateFolder(tmp_path)).__enter__()
    finally:
        other.kill()
        other.communicate()
    with LeaseHolder(StateFolder(tmp_path)) as writer:
        assert writer.lease_number == 2
    shutil.rmtree(tmp_path)


def test_a_child_that_was_forked_meanwhile_does_not_keep_the_lease(tmp_path: Path) -> None:
    waits, ends = os.pipe()
    with LeaseHolder(StateFolder(tmp_path)):
        child = os.fork()
        if child == 0:
            os.close(ends)
            os.read(waits, 1)  # until the test closes its end
            os._exit(0)
    try:
        with LeaseHolder(StateFolder(tmp_path)) as writer:
            assert writer.lease_number == 2
    finally:
        os.close(ends)
        os.waitpid(child, 0)
        os.close(waits)

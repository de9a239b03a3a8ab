"""The format of files already written: what an earlier build wrote is read, and what this one writes has its bytes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from embtables.errors import StateError
from embtables.rows.stored_table import StoredTable
from embtables.schema import Adagrad, Adam, CollisionlessTable, FixedTable, RowwiseAdagrad, Sgd
from embtables.state.folder.version_folder import StateFolder
from embtables.state.format.checksums import Digests
from embtables.state.format.table_files import sketch_file
from embtables.state.read.version_reader import read_version
from tests.faults.driver import TrainedTable, load, run
from tests.faults.test_crash import assert_same

GOLDEN = Path(__file__).parents[2] / "golden" / "state"


def test_what_was_written_once_is_read_for_ever() -> None:
    expected = TrainedTable()
    for _ in range(2):
        expected.train()
    assert_same(load(GOLDEN), expected)
    assert StateFolder(GOLDEN).pinned("best") == ("resume", 2)


def test_the_same_content_has_the_same_bytes(tmp_path: Path) -> None:
    run(tmp_path, 2)
    old, new = StateFolder(GOLDEN), StateFolder(tmp_path)
    for sequence in (1, 2):
        before, after = (state.manifest("resume", sequence) for state in (old, new))
        assert before.files == after.files
        raw = [json.loads((f / "manifests" / f"resume-{sequence:010d}.json").read_bytes()) for f in (GOLDEN, tmp_path)]
        for fields in raw:
            for of_the_moment in ("written", "folder", "checksum"):
                del fields[of_the_moment]
        assert raw[0] == raw[1]


def test_any_arrow_reader_reads_a_tables_file() -> None:
    version = StateFolder(GOLDEN).manifest("resume", 1)
    table = pa.ipc.open_file(GOLDEN / "versions" / version.folder / "t.rows.0.arrow").read_all()
    assert table.column_names == ["key", "weight", "sum", "seen", "count"]
    assert table.num_rows == version.files["t.rows.0.arrow"].rows
    begins = table.schema.metadata[b"embtables.bucket_offsets"]
    assert len(begins) == 1025 * 8
    assert int.from_bytes(begins[-8:], "little") == table.num_rows


CHANGED = {
    "dimension": (CollisionlessTable(name="t", dim=4, optimizer=RowwiseAdagrad(learning_rate=0.1)), "column weight is"),
    "optimizer": (CollisionlessTable(name="t", dim=3, optimizer=Adam(learning_rate=0.1)), "column sum is float"),
    "optimizer with state alike": (
        CollisionlessTable(name="t", dim=3, optimizer=Adagrad(learning_rate=0.1)),
        "column sum",
    ),
    "no optimizer state": (
        CollisionlessTable(name="t", dim=3, optimizer=Sgd(learning_rate=0.1)),
        "column sum is float",
    ),
    "name": (
        CollisionlessTable(name="u", dim=3, optimizer=RowwiseAdagrad(learning_rate=0.1)),
        "table t: is not part of",
    ),
    "kind": (FixedTable(name="t", dim=3, num_rows=9, optimizer=RowwiseAdagrad(learning_rate=0.1)), "keys outside 0..8"),
}


@pytest.mark.parametrize("change", CHANGED)
def test_a_table_that_changed_is_refused_with_the_difference(change: str, tmp_path: Path) -> None:
    shutil.copytree(GOLDEN, tmp_path / "state")
    table, text = CHANGED[change]
    state = StateFolder(tmp_path / "state")
    with pytest.raises(StateError, match=text):
        read_version(state, state.manifest("resume", 1), [StoredTable(table, 5)])


def test_the_sketchs_file_has_its_bytes() -> None:
    """One row per bucket: what the second of three ranks writes of a sketch of known bytes."""
    sketch = np.random.default_rng(1).integers(0, 256, 12 * 1024 + 128 * 1024, np.uint8)
    digests = Digests()
    for piece in sketch_file(sketch, (300, 600)):
        digests.update(piece)
    assert (digests.written().bytes, digests.written().xxh3) == (59_562, "fd40b9bd7bc97f1442bb137ac7e77062")
    table = pa.ipc.open_file(b"".join(sketch_file(sketch, (300, 600)))).read_all()
    assert table.column_names == ["span", "met", "current", "counters"]
    heads = sketch[: 12 * 1024].view("<u4").reshape(1024, 3)[300:600]
    assert np.array_equal(np.stack([table.column(n).to_numpy() for n in range(3)], axis=1), heads)
    counters = sketch[12 * 1024 :].reshape(1024, 128)[300:600]
    assert np.array_equal(np.stack(table.column("counters").to_numpy()), counters)

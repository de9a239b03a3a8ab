"""Versions of several ranks that contradict themselves: ranges that overlap or leave a gap, keys of other ranks."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from embtables.errors import StateError
from embtables.state import read_rows
from embtables.state.folder.version_folder import LeaseHolder, StateFolder
from embtables.state.format import manifest as manifests
from embtables.state.format.checksums import Digests
from embtables.state.format.table_files import OFFSETS
from embtables.state.read.load import load as load_version
from tests.state.ranks_for_tests import Ranks, ranges
from tests.state.versions_for_tests import tables, write

CUTS = [300, 600]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One version, written at three ranks."""
    write(tmp_path / "one", 1)
    one, state = StateFolder(tmp_path / "one"), StateFolder(tmp_path / "three")
    ranks = Ranks(tables, ranges(CUTS))
    ranks.load(one, one.chain("resume", 1))
    with LeaseHolder(state) as writer:
        ranks.write(writer, None)
    return tmp_path / "three"


def rewrite(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Gives the manifest other fields and the right checksum."""
    path = folder / "manifests" / "resume-0000000001.json"
    fields = json.loads(path.read_bytes())
    del fields["checksum"]
    change(fields)
    path.write_bytes(manifests.encode(fields))


def refusal(folder: Path, buckets: tuple[int, int]) -> str:
    state = StateFolder(folder)
    with pytest.raises(StateError) as raised:
        load_version(state, state.chain("resume", 1), tables(), buckets)
    return str(raised.value)


def of_rank(fields: dict[str, Any], rank: int, buckets: list[int]) -> None:
    for name, file in fields["files"].items():
        if name.startswith("grows.") and name.endswith(f".{rank}.arrow"):
            file["buckets"] = buckets


def without(fields: dict[str, Any], *names: str) -> None:
    for name in names:
        fields["tables"]["grows"]["files"].remove(name)


CONTRADICTIONS: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "overlap": (lambda f: of_rank(f, 1, [299, 600]), "table grows: rank 1 has the buckets 299..600, expected a range"),
    "gap": (lambda f: of_rank(f, 1, [301, 600]), "table grows: rank 1 has the buckets 301..600, expected a range"),
    "no end": (lambda f: of_rank(f, 2, [600, 1023]), "table grows: the 3 ranks end at bucket 1023, expected 1024"),
    "empty": (lambda f: of_rank(f, 1, [300, 300]), "table grows: rank 1 has the buckets 300..300"),
    "backwards": (lambda f: of_rank(f, 1, [300, 200]), "table grows: rank 1 has the buckets 300..200"),
    "beyond": (lambda f: of_rank(f, 2, [600, 1025]), "less than or equal to 1024"),
    "files of a rank differ": (
        lambda f: f["files"]["grows.waiting.1.arrow"].update(buckets=[0, 1024]),
        "grows.waiting.1.arrow has other buckets than the rows of rank 1",
    ),
    "no range": (
        lambda f: f["files"]["grows.rows.1.arrow"].update(buckets=None),
        "grows.rows.1.arrow has other buckets than the rows of rank 1",
    ),
    "no rows": (
        lambda f: without(f, "grows.rows.1.arrow", "grows.waiting.1.arrow"),
        "table grows has no rows of rank 1",
    ),
    "waiting keys without rows": (
        lambda f: without(f, "grows.rows.2.arrow"),
        "grows.waiting.2.arrow has other buckets than the rows of rank 2",
    ),
    "nothing": (lambda f: f["tables"]["grows"].update(files=[]), "table grows: the 0 ranks end at bucket 0"),
    "twice": (
        lambda f: f["tables"]["grows"]["files"].append("grows.rows.1.arrow"),
        "table grows lists a file twice",
    ),
    "another table's": (
        lambda f: f["tables"]["grows"]["files"].append("fixed.rows.1.arrow"),
        "table grows has a file 'fixed.rows.1.arrow', which is not the name of a table's file",
    ),
    "another name": (
        lambda f: f["tables"]["grows"]["files"].append("dense.safetensors"),
        "table grows has a file 'dense.safetensors', which is not the name of a table's file",
    ),
    "checksums of blocks": (
        lambda f: f["files"]["grows.rows.1.arrow"].update(blocks=["0" * 32]),
        "has 1 checksums of blocks",
    ),
}


@pytest.mark.parametrize("what", CONTRADICTIONS)
def test_ranges_that_are_not_the_whole_key_space(folder: Path, what: str) -> None:
    change, text = CONTRADICTIONS[what]
    rewrite(folder, change)
    assert text in refusal(folder, (0, 1024))
    with pytest.raises(StateError, match=r"resume-0000000001.json: is not a valid manifest"):
        StateFolder(folder).latest("resume")


def replace(folder: Path, name: str, table: pa.Table) -> None:
    """Another file in its place, with the right length and checksum in the manifest."""
    version = StateFolder(folder).manifest("resume", 1)
    path = folder / "versions" / version.folder / name
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)
    digests = Digests()
    digests.update(path.read_bytes())
    rewrite(folder, lambda f: f["files"][name].update({**asdict(digests.written()), "rows": table.num_rows}))


def stored(folder: Path, name: str) -> pa.Table:
    version = StateFolder(folder).manifest("resume", 1)
    return pa.ipc.open_file((folder / "versions" / version.folder / name).read_bytes()).read_all()


@pytest.mark.parametrize("what", ["rows", "waiting"])
@pytest.mark.parametrize("buckets", [(0, 1024), (300, 600), (250, 450), (500, 1024)])
def test_keys_of_another_rank(folder: Path, what: str, buckets: tuple[int, int]) -> None:
    name = f"grows.{what}.1.arrow"
    other = stored(folder, f"grows.{what}.0.arrow")
    replace(folder, name, other)
    assert f"{name}: has keys of other buckets than 300..599" in refusal(folder, buckets)
    # With offsets that say that all are the first bucket's that is read, the keys give it away.
    begins = np.full(1025, other.num_rows, "<u8")
    begins[: max(buckets[0], 300) + 1] = 0
    replace(folder, name, other.replace_schema_metadata({OFFSETS: begins.tobytes()}))
    assert f"{name}: key " in refusal(folder, buckets)


def test_offsets_that_are_none(folder: Path) -> None:
    name = "grows.rows.1.arrow"
    table = stored(folder, name)
    good = np.frombuffer(table.schema.metadata[OFFSETS], "<u8")
    falls, beyond, short = good.copy(), good.copy(), good[:-1]
    falls[400] = 2**63
    beyond[-1] += 1
    for begins in (falls, beyond, short, good[:0]):
        replace(folder, name, table.replace_schema_metadata({OFFSETS: begins.tobytes()}))
        for buckets in ((0, 1024), (400, 500)):
            assert f"{name}: is damaged: its embtables.bucket_offsets are not those of" in refusal(folder, buckets)
    moved = good.copy()
    moved[301:600] = moved[600]
    replace(folder, name, table.replace_schema_metadata({OFFSETS: moved.tobytes()}))
    assert f"{name}: has keys outside the buckets that it gives for them" in refusal(folder, (0, 1024))


def test_a_sketch_of_some_buckets(folder: Path) -> None:
    name = "counts.sketch.1.arrow"
    table = stored(folder, name)
    replace(folder, name, table.slice(0, 299))
    assert f"{name}: is damaged: its embtables.bucket_offsets" in refusal(folder, (0, 1024))
    rewrite(folder, lambda f: f["tables"]["counts"]["files"].remove(name))
    assert "table counts: holds the sketch of only 724 of its buckets" in refusal(folder, (0, 1024))


def test_an_export_has_the_rows_of_all_ranks(folder: Path) -> None:
    state, whole = StateFolder(folder), tables()
    load_version(state, state.chain("resume", 1), whole)
    for name in ("fixed", "grows", "counts"):
        rows = pa.Table.from_batches(read_rows(state, name)).sort_by("key")
        content = whole.content()[name].unscaled()
        order = np.argsort(content.keys)
        assert rows.column("key").to_pylist() == content.keys[order].tolist()
        assert np.array_equal(np.stack(rows.column("weight").to_numpy()), content.columns["weight"][order])

"""Files and contents with right checksums that are of another shape: a StateError that names them, and nothing else."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embtables.errors import StateError
from embtables.state import read_rows
from embtables.state.folder.version_folder import StateFolder
from embtables.state.read.load import load
from embtables.state.tools.figures import figures_of
from tests.hostile.test_state import replace_file, rewrite
from tests.state.versions_for_tests import tables, write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, 3)
    return tmp_path


def safetensors_of(header: Any, data: bytes = bytes(64)) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def tensor(dtype: str = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


ONE = json.dumps(tensor()).encode()
SAFETENSORS: dict[str, bytes] = {
    "empty": b"",
    "short": b"\0\0\0",
    "a header beyond the file": struct.pack("<Q", 2**60),
    "a header beyond memory": struct.pack("<Q", 2**63) + b"{}",
    "no JSON": safetensors_of(b"\xff\xff"),
    "a list": safetensors_of([]),
    "nested": safetensors_of(b"[" * 50_000),
    "no fields": safetensors_of({"t": {}}),
    "another dtype": safetensors_of({"t": tensor("F99")}, bytes(8)),
    "bf16": safetensors_of({"t": tensor("BF16", (4,))}, bytes(8)),
    "fp8": safetensors_of({"t": tensor("F8_E4M3", (8,))}, bytes(8)),
    "a name twice": safetensors_of(b'{"t":' + ONE + b',"t":' + ONE + b"}", bytes(8)),
    "a shape too large": safetensors_of({"t": tensor(shape=(2**40, 2**40))}, bytes(8)),
    "a negative shape": safetensors_of({"t": tensor(shape=(-2,))}, bytes(8)),
    "offsets beyond": safetensors_of({"t": tensor(offsets=(0, 2**50))}, bytes(8)),
    "offsets backwards": safetensors_of({"t": tensor(offsets=(8, 0))}, bytes(8)),
    "bytes of no tensor": safetensors_of({"t": tensor()}, bytes(100)),
}


@pytest.mark.parametrize("file", ["tables.safetensors", "dense.safetensors"])
@pytest.mark.parametrize("what", SAFETENSORS)
def test_tensors_of_another_shape(folder: Path, what: str, file: str) -> None:
    replace_file(folder, file, SAFETENSORS[what], None)
    state = StateFolder(folder)
    try:
        load(state, state.chain("resume", 3), tables())
    except StateError as error:
        assert file in str(error)
    else:
        # What safetensors takes as it is: one array of that name.
        assert (what, file) in {("bf16", "dense.safetensors"), ("a name twice", "dense.safetensors")}


def test_any_byte_of_what_says_how_a_file_is_laid_out(folder: Path) -> None:
    """Every one of them that Arrow looks at: refused, or it says the same; no error of Arrow's own comes through."""
    state = StateFolder(folder)
    version = state.manifest("resume", 3)
    name = "grows.rows.0.arrow"
    path = folder / "versions" / version.folder / name
    data = path.read_bytes()
    rows = version.files[name].rows
    whole = [batch.to_pydict() for batch in read_rows(state, "grows")]
    rng, outcomes = np.random.default_rng(0), set()
    footer = struct.unpack_from("<I", data, len(data) - 10)[0]
    places = [*range(600), *range(len(data) - 10 - footer, len(data))]
    for at in rng.choice(places, 250, replace=False).tolist():
        changed = bytearray(data)
        changed[at] = int(rng.choice([0, 1, 0x7F, 0x80, 0xFF, changed[at] ^ 1]))
        replace_file(folder, name, bytes(changed), rows)
        try:
            found = [batch.to_pydict() for batch in read_rows(state, "grows")]
        except StateError as error:
            assert name in str(error) or "grows" in str(error)
            outcomes.add("refused")
        else:
            outcomes.add("the same" if found == whole else "other rows")
    assert {"refused", "the same"} <= outcomes


@pytest.mark.parametrize("cut", [1, 6, 10, 11, 500, 4000])
def test_a_footer_that_is_cut_short(folder: Path, cut: int) -> None:
    state = StateFolder(folder)
    version = state.manifest("resume", 3)
    data = (folder / "versions" / version.folder / "grows.rows.0.arrow").read_bytes()
    replace_file(folder, "grows.rows.0.arrow", data[:-cut], version.files["grows.rows.0.arrow"].rows)
    with pytest.raises(StateError, match=r"grows.rows.0.arrow: "):
        list(read_rows(state, "grows"))


SCHEMAS: dict[str, Any] = {
    "a list": [],
    "a word": "schema",
    "a number": 3,
    "tables of another type": {"tables": 3, "features": []},
    "tables by name": {"tables": {"grows": {}}, "features": []},
    "no features": {"tables": []},
    "tables that are none": {"tables": [None], "features": []},
    "another kind": {"tables": [{"kind": "x", "name": "grows", "dim": 3}], "features": []},
    "features of another type": {"tables": [], "features": [3]},
}


@pytest.mark.parametrize("what", SCHEMAS)
def test_a_recorded_schema_of_another_shape(folder: Path, what: str) -> None:
    rewrite(folder, 3, lambda fields: fields["content"].update(schema=SCHEMAS[what]))
    state = StateFolder(folder)
    with pytest.raises(StateError, match="version resume-3: this build cannot read its schema"):
        figures_of(state, state.chain("resume", 3), [], 3)


@pytest.mark.parametrize("content", [[], "x", 3, None])
def test_a_content_that_is_no_object(folder: Path, content: Any) -> None:
    rewrite(folder, 3, {"content": content})
    with pytest.raises(StateError, match=r"resume-0000000003.json: is not a valid manifest: content"):
        StateFolder(folder).manifest("resume", 3)


def test_a_content_nested_without_end(folder: Path) -> None:
    deep: Any = 1
    for _ in range(200):
        deep = {"a": deep}
    rewrite(folder, 3, {"content": {"schema": deep}})
    with pytest.raises(StateError, match=r"resume-0000000003.json: is damaged"):
        StateFolder(folder).manifest("resume", 3)


@pytest.mark.parametrize("figures", [[], {"admitted": -1}, {"admitted": "1"}, {"admitted": True}, {"a b": 1}, 3])
def test_counts_of_another_shape(folder: Path, figures: Any) -> None:
    rewrite(folder, 3, lambda fields: fields["tables"]["grows"].update(figures=figures))
    with pytest.raises(StateError, match=r"resume-0000000003.json: is not a valid manifest"):
        StateFolder(folder).manifest("resume", 3)

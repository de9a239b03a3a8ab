"""Files of versions for servers made to harm: rounded weights and side tables of another shape are refused, named."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from embtables import LeaseHolder, StateFolder, VersionWriter
from embtables.errors import StateError
from embtables.state.format import manifest as manifests
from embtables.state.format.checksums import Digests
from embtables.state.format.side_file import SideFile, parse_side_file
from embtables.state.format.weight_dtype import WeightDtype
from embtables.state.read.range_reader import RangeReader
from embtables.state.read.version_reader import read_version
from embtables.state.tools.compact import compact
from tests.state.versions_for_tests import tables, train

ITEMS = pa.table({"id": ["a", "b", "c"], "tags": [["x"], [], ["y", "z"]]})


@pytest.fixture
def make(tmp_path: Path) -> Callable[[WeightDtype], StateFolder]:
    """A snapshot and a delta of tables trained a little."""

    def made(dtype: WeightDtype) -> StateFolder:
        state, trained = StateFolder(tmp_path), tables()
        with LeaseHolder(state) as holder:
            writer = VersionWriter(holder, "serving", trained, projection="weights", dtype=dtype)
            for step in range(2):
                train(trained, range(step, step + 1))
                writer.cut({}, {}, side_tables={"side.0.arrow": SideFile(ITEMS)})
            writer.close()
            assert writer.failures == []
        return state

    return made


def rewrite(state: StateFolder, number: int, change: Callable[[dict[str, Any]], Any]) -> None:
    """Other fields of a manifest, with the right checksum."""
    path = Path(str(state.folder.root)) / "manifests" / f"serving-{number:010d}.json"
    fields = json.loads(path.read_bytes())
    del fields["checksum"]
    change(fields)
    path.write_bytes(manifests.encode(fields))


def replace_file(state: StateFolder, number: int, name: str, raw: bytes) -> None:
    """Another file in its place, as the manifest then says."""
    version = state.manifest("serving", number)
    Path(str(state.folder.root), "versions", version.folder, name).write_bytes(raw)
    digests = Digests()
    digests.update(raw)
    file = asdict(digests.written())
    rewrite(state, number, lambda fields: fields["files"][name].update(file | {"blocks": list(file["blocks"])}))


def refusal(state: StateFolder, number: int = 1) -> str:
    with pytest.raises(StateError) as raised:
        read_version(state, state.manifest("serving", number), tables().stored)
    return str(raised.value)


@pytest.mark.parametrize(
    ("dtype", "said"), [("fp32", "int8"), ("bf16", "fp16"), ("fp16", "bf16"), ("int8", "fp32"), ("bf16", "fp32")]
)
def test_a_manifest_that_says_another_dtype_than_its_files(
    dtype: WeightDtype, said: WeightDtype, make: Callable[[WeightDtype], StateFolder]
) -> None:
    state = make(dtype)
    for number in (1, 2):
        rewrite(state, number, lambda fields: fields["tables"]["grows"].update(dtype=said))
    assert "grows.rows.0.arrow: holds other columns than the table: column weight is" in refusal(state)
    with LeaseHolder(state) as holder, pytest.raises(StateError, match=r"grows\.rows\.0\.arrow: holds columns that no"):
        compact(holder, "serving", keep=1)


def test_a_chain_whose_versions_differ_in_dtype(make: Callable[[WeightDtype], StateFolder]) -> None:
    state = make("fp32")
    rewrite(state, 1, lambda fields: fields["tables"]["grows"].update(dtype="bf16"))
    with (
        LeaseHolder(state) as holder,
        pytest.raises(StateError, match="in bf16, serving-2 after it in fp32"),
    ):
        compact(holder, "serving", keep=1)
    assert state.sequences("serving") == [1, 2]


def change_of(table: str, **fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda manifest: manifest["tables"][table].update(fields)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (change_of("grows", dtype="int4"), "dtype: Input should be 'fp32', 'bf16', 'fp16' or 'int8'"),
        (change_of("grows", error={"max_abs": -1.0, "rms": 0.0}), "greater than or equal to 0"),
        (change_of("grows", error={"max_abs": 1, "rms": "0"}), "should be a valid number"),
        (change_of("grows", error={"max_abs": 1.0}), "rms"),
        (
            lambda manifest: manifest.update(projection="full") or manifest["tables"]["grows"].update(dtype="bf16"),
            "table grows has weights in bf16, which only versions of weights have",
        ),
    ],
)
def test_manifests_that_say_what_no_version_has(
    change: Callable[[dict[str, Any]], Any], text: str, make: Callable[[WeightDtype], StateFolder]
) -> None:
    state = make("fp32")
    rewrite(state, 1, change)
    with pytest.raises(StateError, match=r"serving-0000000001\.json: is not a valid manifest") as raised:
        state.manifest("serving", 1)
    assert text in str(raised.value)


def test_a_damaged_scale_gives_weights_that_whoever_takes_them_over_judges(
    make: Callable[[WeightDtype], StateFolder],
) -> None:
    state = make("int8")
    version = state.manifest("serving", 1)
    raw = bytearray(RangeReader(state, version, "fixed.rows.0.arrow").read_all())
    content = read_version(state, version, tables().stored).tables["fixed"]
    stored = pa.ipc.open_file(pa.BufferReader(raw)).get_batch(0).column("weight").values.to_numpy()
    row = stored.reshape(len(content.keys), 4 + 8)[0]
    at = bytes(raw).index(row.tobytes())
    raw[at + 4 : at + 8] = np.float32(np.inf).tobytes()
    replace_file(state, 1, "fixed.rows.0.arrow", bytes(raw))
    weights = read_version(state, state.manifest("serving", 1), tables().stored).tables["fixed"].columns["weight"]
    assert not np.isfinite(weights[0]).all()
    assert np.isfinite(weights[1:]).all()


def arrow(batches: list[pa.RecordBatch], options: pa.ipc.IpcWriteOptions | None = None) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, batches[0].schema, options=options) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return sink.getvalue()


BATCH = ITEMS.to_batches()[0]
RUNS = pa.record_batch([pa.RunEndEncodedArray.from_arrays([2**30], ["x"])], ["id"])
NOTHING = pa.record_batch([pa.Array.from_buffers(pa.null(), 2**31 - 1, [None])], ["id"])
COMPRESSED = pa.ipc.IpcWriteOptions(compression="zstd")
SIDES = {
    "compressed": (arrow([BATCH], COMPRESSED), "is compressed, which this build never writes"),
    "two batches": (arrow([BATCH, BATCH]), "has 2 record batches, expected one"),
    "no batch": (b"", "is damaged"),
    # Made with pickle, as an attacker would; what is tested is that nothing unpickles it.
    "a pickle": (pickle.dumps([1]), "is damaged"),
    "magic alone": (b"ARROW1\0\0" + bytes(500) + b"ARROW1", "is damaged"),
    "a dictionary": (
        arrow([pa.record_batch([BATCH["id"].dictionary_encode()], ["id"])]),
        "has values of dictionary<values=string, indices=int32, ordered=0>, which this build never writes",
    ),
    "runs": (arrow([RUNS]), "has values of run_end_encoded"),
    "values without bytes": (arrow([NOTHING]), "is damaged: 2,147,483,647 rows in"),
    "a struct": (arrow([pa.record_batch([pa.array([{"a": 1}])], ["id"])]), "has values of struct<a: int64>"),
}


@pytest.mark.parametrize("name", SIDES)
def test_a_side_table_that_no_build_wrote(name: str) -> None:
    raw, text = SIDES[name]
    with pytest.raises(StateError) as raised:
        parse_side_file(memoryview(raw), "side.0.arrow")
    assert str(raised.value).startswith("file side.0.arrow: ")
    assert text in str(raised.value)


def test_every_byte_of_a_side_table_may_be_anything() -> None:
    """Checksums find chance; this is what a file made to harm could do: it is refused, or a table all the same."""
    raw = b"".join(bytes(chunk) for chunk in SideFile(ITEMS).chunks())
    assert parse_side_file(memoryview(bytearray(raw)), "side.0.arrow").equals(ITEMS)
    refused = 0
    for at in range(len(raw)):
        for value in (0, 0x7F, 0xFF):
            damaged = bytearray(raw)
            damaged[at] = value
            try:
                found = parse_side_file(memoryview(damaged), "side.0.arrow")
            except StateError:
                refused += 1
            else:
                found.to_pylist()
    assert refused > 100


def test_types_that_no_side_table_has_are_refused_when_it_is_made() -> None:
    for values in (pa.array([{"a": 1}]), RUNS["id"].slice(0, 1)):
        with pytest.raises(StateError, match=r"column id: a side table cannot be published with values of"):
            SideFile(pa.table({"id": values}))


def test_tables_that_are_gone_are_not_there_for_a_delta(make: Callable[[WeightDtype], StateFolder]) -> None:
    state = make("bf16")
    rewrite(state, 2, lambda fields: fields["tables"].pop("grows"))
    assert "table grows: is not part of version serving-2" in refusal(state, 2)

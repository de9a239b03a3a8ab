"""The string hash: pinned vectors, an independent oracle, every instruction set, every Arrow layout, damaged input."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from embtables.errors import DataError
from embtables.ids.strings import hash_strings
from embtables.native import _core

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "string_hash.json").read_text())
PATTERN = bytes((131 * i + 7 * (i // 8)) % 256 for i in range(5000))


def oracle(values: list[bytes]) -> np.ndarray:
    return np.array([xxhash.xxh3_64_intdigest(v) for v in values], np.uint64).view(np.int64)


def run(values: list[bytes], isa: str) -> np.ndarray:
    array = pa.array(values, pa.binary())
    _, offsets, data = array.buffers()
    out = np.empty(len(values), np.int64)
    content = np.empty(0, np.uint8) if data is None else np.frombuffer(data, np.uint8)
    _core.hash_strings(content, np.frombuffer(offsets, np.int32)[: len(values) + 1], out, isa)
    return out


@pytest.mark.parametrize("isa", _core.available_isas())
def test_pinned_vectors_never_change(isa: str) -> None:
    values = [PATTERN[: int(n)] for n in GOLDEN["pattern"]] + [w.encode() for w in GOLDEN["strings"]]
    expected = [*GOLDEN["pattern"].values(), *GOLDEN["strings"].values()]
    assert run(values, isa).view(np.uint64).tolist() == expected


@pytest.mark.parametrize("isa", _core.available_isas())
@settings(deadline=None, max_examples=60)
@given(
    lengths=st.lists(st.integers(0, 20) | st.integers(4, 8) | st.integers(200, 1500), max_size=200),
    seed=st.integers(0, 99),
)
def test_every_instruction_set_agrees_with_the_oracle(isa: str, lengths: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = [rng.bytes(n) for n in lengths]
    assert np.array_equal(run(values, isa), oracle(values))


@pytest.mark.parametrize("isa", _core.available_isas())
def test_groups_of_short_ids_agree_with_the_oracle(isa: str) -> None:
    # Long runs of 4 to 8 bytes take the grouped path; one odd string in the middle takes a group off it.
    values = [str(i).encode() for i in range(1000, 9000)]
    values[777] = b"x" * 30
    values[3000] = b""
    assert np.array_equal(run(values, isa), oracle(values))


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
)
def test_arrow_layouts_nulls_slices_and_chunks(kind: pa.DataType) -> None:
    words = ["", "a", None, "United Kingdom", "85123A", "é", None, "a"]
    plain = oracle([(w or "").encode() for w in words])
    expected = np.where([w is None for w in words], 0, plain)
    array = pa.array(words, pa.string()).cast(kind) if pa.types.is_string_view(kind) else pa.array(words, kind)
    assert np.array_equal(hash_strings(array), expected)
    assert np.array_equal(hash_strings(array.slice(3, 4)), expected[3:7])
    chunked = pa.chunked_array([array.slice(0, 3), array.slice(3)])
    assert np.array_equal(hash_strings(chunked), expected)
    assert len(hash_strings(array.slice(0, 0))) == 0
    assert len(hash_strings(pa.chunked_array([], kind))) == 0


def test_a_null_inside_a_dictionary_hashes_to_zero() -> None:
    array = pa.DictionaryArray.from_arrays(pa.array([0, 1, None, 1]), pa.array(["a", None]))
    assert hash_strings(array)[1:].tolist() == [0, 0, 0]
    assert hash_strings(array)[0] == oracle([b"a"])[0]


@pytest.mark.parametrize("offsets", [[0, 5, 3], [0, 2, 99], [-1, 2, 3], [0, 2, -3]])
def test_damaged_offsets_are_refused_before_anything_is_read(offsets: list[int]) -> None:
    with pytest.raises(ValueError, match="damaged"):
        _core.hash_strings(
            np.frombuffer(b"abcdef", np.uint8), np.array(offsets, np.int32), np.empty(2, np.int64), "scalar"
        )


def test_a_damaged_array_is_a_data_error() -> None:
    buffers = [None, pa.py_buffer(np.array([0, 5, 3, 6], np.int32)), pa.py_buffer(b"abcdef")]
    with pytest.raises(DataError, match="damaged"):
        hash_strings(pa.Array.from_buffers(pa.string(), 3, buffers))


def test_other_types_are_refused() -> None:
    with pytest.raises(DataError, match="received int64"):
        hash_strings(pa.array([1, 2]))


@pytest.mark.parametrize(("value", "ok"), [("scalar", True), ("sse9", False)])
def test_the_environment_forces_an_instruction_set(value: str, ok: bool) -> None:
    code = "from embtables.native import isa; print(isa())"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"EMBTABLES_ISA": value}, capture_output=True, text=True, check=False
    )
    assert (done.returncode == 0) is ok
    assert value in (done.stdout if ok else done.stderr)
    assert ok or "this machine has: scalar" in done.stderr

"""Hashing of Arrow arrays: every layout gives the hash of the strings it shows, damage gives a DataError."""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from embtables.errors import DataError
from embtables.ids.strings import hash_strings

STRINGS = [pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view()]
INDICES = [pa.int8(), pa.uint8(), pa.int16(), pa.uint16(), pa.int32(), pa.uint32(), pa.int64(), pa.uint64()]


def oracle(words: list[str | None]) -> list[int]:
    hashes = [None if w is None else xxhash.xxh3_64_intdigest(w.encode()) for w in words]
    return np.array([h or 0 for h in hashes], np.uint64).view(np.int64).tolist()


def array_of(words: list[str | None], kind: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(kind):
        distinct: list[str | None] = [*sorted({w for w in words if w is not None})]
        indices = pa.array([None if w is None else distinct.index(w) for w in words], kind.index_type)
        return pa.DictionaryArray.from_arrays(indices, array_of(distinct, kind.value_type))
    return pa.array([None if w is None else w.encode() for w in words], pa.binary()).cast(kind)


@pytest.mark.parametrize("kind", [*STRINGS, *(pa.dictionary(i, v) for i in INDICES for v in STRINGS)], ids=str)
def test_layouts_nulls_slices_and_chunks(kind: pa.DataType) -> None:
    words = ["", "a", None, "United Kingdom", "85123A", "é", None, "a", "x" * 300]
    expected = oracle(words)
    array = array_of(words, kind)
    assert hash_strings(array).tolist() == expected
    assert hash_strings(array.slice(3, 4)).tolist() == expected[3:7]
    assert hash_strings(array.slice(8)).tolist() == expected[8:]
    assert hash_strings(pa.chunked_array([array.slice(0, 3), array.slice(3, 0), array.slice(3)])).tolist() == expected
    assert hash_strings(pa.chunked_array([array])).tolist() == expected
    for none in (array.slice(4, 0), array_of([], kind), pa.chunked_array([], kind)):
        assert hash_strings(none).tolist() == []
        assert hash_strings(none).dtype == np.int64


@settings(deadline=None, max_examples=100)
@given(
    words=st.lists(st.none() | st.text(max_size=20), max_size=300),
    kind=st.sampled_from([pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]),
    cut=st.tuples(st.integers(0, 300), st.integers(0, 300)),
)
def test_a_slice_hashes_as_its_strings(words: list[str | None], kind: pa.DataType, cut: tuple[int, int]) -> None:
    start, stop = min(cut), max(cut)
    assert hash_strings(array_of(words, kind)[start:stop]).tolist() == oracle(words[start:stop])


def test_all_nulls_and_nulls_inside_a_dictionary_give_zero() -> None:
    assert hash_strings(pa.array([None, None], pa.string())).tolist() == [0, 0]
    assert hash_strings(pa.array([None, None], pa.dictionary(pa.int8(), pa.string()))).tolist() == [0, 0]
    array = pa.DictionaryArray.from_arrays(pa.array([0, 1, None, 1]), pa.array(["a", None]))
    assert hash_strings(array).tolist() == [*oracle(["a"]), 0, 0, 0]


def test_bytes_under_a_null_do_not_matter() -> None:
    validity = pa.py_buffer(bytes([0b101]))
    offsets = pa.py_buffer(np.array([0, 1, 3, 4], np.int32))
    array = pa.Array.from_buffers(pa.string(), 3, [validity, offsets, pa.py_buffer(b"a??b")])
    assert hash_strings(array).tolist() == oracle(["a", None, "b"])


def test_bytes_that_are_no_text_are_hashed_as_they_lie() -> None:
    expected = np.array([xxhash.xxh3_64_intdigest(b"\xff\xfe")], np.uint64).view(np.int64)
    offsets = pa.py_buffer(np.array([0, 2], np.int32))
    assert np.array_equal(hash_strings(pa.array([b"\xff\xfe"])), expected)
    assert np.array_equal(
        hash_strings(pa.Array.from_buffers(pa.string(), 1, [None, offsets, pa.py_buffer(b"\xff\xfe")])), expected
    )
    views = pa.array([b"\xff\xfe"], pa.binary_view()).view(pa.string_view())
    assert np.array_equal(hash_strings(views), expected)


def test_strings_without_any_bytes() -> None:
    assert hash_strings(pa.array(["", "", ""])).tolist() == oracle([""] * 3)
    assert hash_strings(pa.nulls(3, pa.large_string())).tolist() == [0, 0, 0]


def int32s(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}i", *values)


def extent(start: int, length: int) -> bytes:
    """How an Arrow IPC message states where a buffer lies: two 64-bit numbers."""
    return struct.pack("<2q", start, length)


def from_damaged_file(array: pa.Array, found: bytes, instead: bytes) -> pa.Array:
    """`array` written as an Arrow IPC stream and read again after one change to its bytes, which pyarrow accepts."""
    sink = pa.BufferOutputStream()
    batch = pa.record_batch([array], ["column"])
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    content = sink.getvalue().to_pybytes()
    assert content.count(found) == 1
    return pa.ipc.open_stream(content.replace(found, instead)).read_next_batch().column(0)


SOUND = pa.array(["ab", "cde", "f"])
WITH_NULL = pa.array(["ab"] * 8 + [None])
DICTIONARY = pa.array(["a", "b", "a", "b", "a"], pa.dictionary(pa.int32(), pa.string()))
DAMAGED = {
    "offsets fall": (SOUND, int32s(0, 2, 5, 6), int32s(0, 5, 2, 6)),
    "last offset past the data": (SOUND, int32s(0, 2, 5, 6), int32s(0, 2, 5, 99)),
    "inner offset past the data": (SOUND, int32s(0, 2, 5, 6), int32s(0, 2, 99, 6)),
    "first offset negative": (SOUND, int32s(0, 2, 5, 6), int32s(-1, 2, 5, 6)),
    "inner offset negative": (SOUND, int32s(0, 2, 5, 6), int32s(0, -(2**31), 5, 6)),
    "too few offsets": (SOUND, extent(0, 16), extent(0, 8)),
    "an offset cut short": (SOUND, extent(0, 16), extent(0, 13)),
    "no offsets": (SOUND, extent(0, 16), extent(0, 0)),
    "too few validity bits": (WITH_NULL, extent(0, 2), extent(0, 1)),
    "too few indices": (DICTIONARY, extent(0, 20), extent(0, 8)),
    "no indices": (DICTIONARY, extent(0, 20), extent(0, 0)),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_arrays_are_data_errors(name: str) -> None:
    with pytest.raises(DataError, match="damaged"):
        hash_strings(from_damaged_file(*DAMAGED[name]))


def damaged_view(word: int, value: int) -> pa.Array:
    """One string view of 20 bytes, its 32-bit word (0 length, 2 buffer number, 3 offset) set to `value`."""
    sound = pa.array(["x" * 20], pa.string_view())
    view: npt.NDArray[np.int32] = np.frombuffer(sound.buffers()[1], np.int32, 4).copy()
    view[word] = value
    return pa.Array.from_buffers(pa.string_view(), 1, [None, pa.py_buffer(view), sound.buffers()[2]])


@pytest.mark.parametrize(("word", "value"), [(0, -5), (0, 2**31 - 1), (2, 1), (2, -1), (3, 1), (3, -1)])
def test_damaged_views_are_data_errors(word: int, value: int) -> None:
    with pytest.raises(DataError, match="damaged"):
        hash_strings(damaged_view(word, value))


@pytest.mark.parametrize(("index", "kind"), [(2, pa.int8()), (-1, pa.int8()), (2**63, pa.uint64())])
def test_an_index_outside_the_dictionary_names_its_row(index: int, kind: pa.DataType) -> None:
    indices = pa.array([0, None, index, 1], kind)
    array = pa.DictionaryArray.from_arrays(indices, pa.array(["a", "b"]), safe=False)
    with pytest.raises(DataError, match=f"row 2: index {index} lies outside the dictionary's 2 values"):
        hash_strings(array)


@pytest.mark.parametrize("array", [pa.array([1, 2]), pa.array([["a"]]), pa.array([1, 1]).dictionary_encode()], ids=str)
def test_other_types_are_refused(array: pa.Array) -> None:
    with pytest.raises(DataError, match=r"received (int64|list<.*string>); cast"):
        hash_strings(array)

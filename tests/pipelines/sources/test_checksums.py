"""Checksums of columns in memory: of the values, whatever their chunks, and of every one of them."""

from __future__ import annotations

import datetime
import decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from embtables.pipelines.sources import checksums
from embtables.pipelines.sources.checksums import checksum

MOMENT = datetime.datetime(2026, 1, 1)
# Of each type: two values that differ as little as they can.
VALUES: dict[str, tuple[pa.DataType, Any, Any]] = {
    "int8": (pa.int8(), 1, -1),
    "uint16": (pa.uint16(), 1, 65_535),
    "int64": (pa.int64(), 2**62, 2**62 + 1),
    "uint64": (pa.uint64(), 2**64 - 1, 2**64 - 2),
    "float16": (pa.float16(), np.float16(1.0), np.float16(1.5)),
    "float32": (pa.float32(), 1.0, float(np.nextafter(np.float32(1), np.float32(2)))),
    "float64": (pa.float64(), 1.0, float(np.nextafter(1.0, 2.0))),
    "bool": (pa.bool_(), True, False),
    "string": (pa.string(), "a", "ä"),
    "large_string": (pa.large_string(), "", " "),
    "string_view": (pa.string_view(), "long enough to be stored apart 1", "long enough to be stored apart 2"),
    "binary": (pa.binary(), b"\xff", b"\xfe"),
    "category": (pa.dictionary(pa.int32(), pa.string()), "a", "b"),
    "numbers by code": (pa.dictionary(pa.int8(), pa.int64()), 5, 6),
    "timestamp": (pa.timestamp("us"), MOMENT, MOMENT + datetime.timedelta(microseconds=1)),
    "date32": (pa.date32(), MOMENT.date(), MOMENT.date() + datetime.timedelta(days=1)),
    "decimal": (pa.decimal128(20, 2), decimal.Decimal("1.00"), decimal.Decimal("1.01")),
    "uuid": (pa.binary(16), b"a" * 16, b"a" * 15 + b"b"),
    "list": (pa.list_(pa.int64()), [1, 2], [1, 3]),
    "list of strings": (pa.large_list(pa.string()), ["a", None], ["a", ""]),
    "fixed list": (pa.list_(pa.float32(), 2), [1.0, 2.0], [1.0, 3.0]),
    "struct": (pa.struct([("a", pa.int8()), ("b", pa.string())]), {"a": 1, "b": "x"}, {"a": 1, "b": "y"}),
    "map": (pa.map_(pa.string(), pa.int8()), [("a", 1)], [("a", 2)]),
}


def column(kind: pa.DataType, values: list[Any]) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values, kind)])


@pytest.mark.parametrize("name", VALUES)
def test_chunks_do_not_matter_and_every_value_does(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checksums, "_ROWS", 8)
    kind, one, other = VALUES[name]
    values = [one, None, other, one, one, other, None, None, one, other, one]
    found = checksum(column(kind, values))
    whole = pa.array([other, *values, other], kind)
    cut = pa.chunked_array([whole.slice(1, 3), whole.slice(4, 0), whole.slice(4, 7), whole.slice(11, 1)])
    assert cut.to_pylist() == column(kind, values).to_pylist()
    assert checksum(cut) == found
    changed = [[*values[:at], new, *values[at + 1 :]] for at in range(11) for new in (one, other, None)]
    others = {checksum(column(kind, each)) for each in changed if each != values}
    assert len(others) == 22
    assert found not in others
    assert found not in {checksum(column(kind, values[:-1])), checksum(column(kind, [*values, None]))}


def test_what_lies_under_nulls_does_not_matter() -> None:
    plain = pa.array([1.0, None, 3.0])
    other = pa.Array.from_buffers(pa.float64(), 3, [plain.buffers()[0], pa.py_buffer(np.array([1.0, 9.0, 3.0]))])
    assert other.equals(plain)
    assert checksum(pa.chunked_array([other])) == checksum(pa.chunked_array([plain]))


def test_the_codes_of_categories_do_not_matter() -> None:
    one = pa.DictionaryArray.from_arrays([0, 1, None], ["a", "b"])
    other = pa.DictionaryArray.from_arrays([2, 0, None], ["b", "unused", "a"])
    assert checksum(pa.chunked_array([one])) == checksum(pa.chunked_array([other]))


def test_lists_are_not_taken_for_one_another() -> None:
    lists = [[[1], [2, 3]], [[1, 2], [3]], [[1, 2, 3], []], [[], [1, 2, 3]], [None, [1, 2, 3]]]
    assert len({checksum(pa.chunked_array([pa.array(each, pa.list_(pa.int64()))])) for each in lists}) == 5
    texts = [["ab", "c"], ["a", "bc"], ["abc", ""], ["", "abc"], [None, "abc"]]
    assert len({checksum(pa.chunked_array([pa.array(each)])) for each in texts}) == 5

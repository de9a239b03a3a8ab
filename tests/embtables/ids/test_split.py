"""Native splitting of strings is that of Python, and damaged arrays are refused."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embtables.errors import DataError
from embtables.ids.strings import split_strings
from embtables.native import _core

TEXTS = st.text("ab| é\U0001f600", max_size=8)


@given(
    texts=st.lists(TEXTS, max_size=6),
    separator=st.sampled_from(["|", " ", "||", "a", "é", "\U0001f600", "ab"]),
    kind=st.sampled_from([pa.string(), pa.large_string()]),
    first=st.integers(0, 3),
)
def test_pieces_are_those_of_python(texts: list[str], separator: str, kind: pa.DataType, first: int) -> None:
    pieces, starts = split_strings(pa.array(texts, kind)[first:], separator)
    expected = [[piece for piece in text.split(separator) if piece] for text in texts[first:]]
    pieces.validate(full=True)
    assert pieces.to_pylist() == [piece for of_text in expected for piece in of_text]
    assert np.diff(starts).tolist() == [len(of_text) for of_text in expected]
    assert starts[0] == 0


@pytest.mark.parametrize("offsets", [[0, 3, 2], [0, 2, 9], [-1, 2, 3], [0, 2**31 - 1, 3]])
def test_offsets_that_point_elsewhere_are_refused(offsets: list[int]) -> None:
    data = np.frombuffer(b"a|b", np.uint8)
    for kind in (np.int32, np.int64):
        with pytest.raises(ValueError, match="the array is damaged"):
            _core.split_strings(data, np.array(offsets, kind), "|")


def test_a_damaged_array_is_refused() -> None:
    damaged = pa.StringArray.from_buffers(2, pa.py_buffer(np.array([0, 3, 2], np.int32)), pa.py_buffer(b"a|b"))
    with pytest.raises(DataError, match="damaged; read it again"):
        split_strings(damaged, "|")

"""Keys among unique ones: a dictionary is the oracle, for every type of key, in one column and in several."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embtables.errors import StateError
from embtables.serving.versions.side_tables import key_index
from embtables.serving.versions.side_tables.key_index import KeyColumn, KeyIndex

# Arrow types that hold the same keys; a request may have another one of them than the table.
INTEGERS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.decimal128(20, 0)]
TEXTS = [pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.large_string())]
TIMES = [pa.timestamp("s"), pa.timestamp("ms"), pa.timestamp("us"), pa.timestamp("us", "Europe/Berlin")]
FAMILIES = {
    "integers": (INTEGERS, [-128, -3, -1, 0, 1, 2, 7, 127]),
    "texts": (TEXTS, ["", "a", "b", "ab", "é", "a long text that does not fit into a word", "85123A", "71053"]),
    "times": (TIMES, [datetime(2024, 1, day, hour) for day in (1, 2, 3, 4) for hour in (0, 7)]),
}


def array(kind: pa.DataType, values: Sequence[Any]) -> pa.Array:
    if pa.types.is_dictionary(kind):
        return pa.array(values, kind.value_type).dictionary_encode()
    if pa.types.is_decimal(kind):
        return pa.array([None if value is None else Decimal(value) for value in values], kind)
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        return pa.array(values, pa.timestamp("us")).cast(pa.int64()).cast(kind)
    return pa.array(values, kind)


def found(index: KeyIndex, columns: Sequence[pa.Array]) -> list[int]:
    rows: list[int] = index.find([KeyColumn.of(f"k{n}", column) for n, column in enumerate(columns)]).tolist()
    return rows


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[pa.Array], list[pa.Array], list[int]]:
    """Key columns of a table, those of a request, and the right answer."""
    families = draw(st.lists(st.sampled_from(sorted(FAMILIES)), min_size=1, max_size=3))
    columns = [FAMILIES[family] for family in families]
    keys = st.tuples(*(st.sampled_from(values) for _, values in columns))
    known = draw(st.lists(keys, unique=True, max_size=12))
    wanted = draw(st.lists(st.tuples(*(st.none() | st.sampled_from(values) for _, values in columns)), max_size=12))

    def arrays(rows: Sequence[tuple[Any, ...]]) -> list[pa.Array]:
        kinds = [draw(st.sampled_from(kinds)) for kinds, _ in columns]
        return [array(kind, [row[place] for row in rows]) for place, kind in enumerate(kinds)]

    places = {key: row for row, key in enumerate(known)}
    right = [places.get(key, len(known)) if None not in key else len(known) for key in wanted]
    return arrays(known), arrays(wanted), right


@settings(deadline=None, max_examples=200)
@given(case=tables())
def test_a_lookup_is_that_of_a_dict_for_all_types_of_keys(
    case: tuple[list[pa.Array], list[pa.Array], list[int]],
) -> None:
    known, wanted, right = case
    index = KeyIndex([KeyColumn.of("k", column) for column in known])
    assert found(index, wanted) == right


@settings(deadline=None, max_examples=100)
@given(case=tables(), distinct=st.integers(1, 3))
def test_keys_of_one_hash_are_told_apart_by_their_values(
    case: tuple[list[pa.Array], list[pa.Array], list[int]], distinct: int
) -> None:
    known, wanted, right = case
    real = key_index._words
    with pytest.MonkeyPatch.context() as patch:
        if len(known) > 1:  # a single number is its own word, of which there are no collisions
            patch.setattr(key_index, "_words", lambda columns: real(columns) % distinct)
        hashed = key_index.hash_strings
        patch.setattr(key_index, "hash_strings", lambda texts: hashed(texts) % distinct)
        index = KeyIndex([KeyColumn.of("k", column) for column in known])
        assert found(index, wanted) == right


def test_unsigned_keys_meet_signed_ones_by_their_64_bits() -> None:
    index = KeyIndex([KeyColumn.of("k", pa.array([2**63, 2**64 - 1, 5], pa.uint64()))])
    assert found(index, [pa.array([-1, -(2**63), 5, 0])]) == [1, 0, 2, 3]


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        ([["a", "b", "a"]], "'a'"),
        ([[7, 8, 7]], "7"),
        ([[1, 1, 1], ["a", "b", "a"]], "1, 'a'"),
    ],
)
def test_a_key_that_is_there_twice_is_refused(columns: list[list[Any]], shown: str) -> None:
    with pytest.raises(StateError, match=f"the key {shown} is there twice"):
        KeyIndex([KeyColumn.of("k", pa.array(values)) for values in columns])


def test_a_null_key_is_refused() -> None:
    with pytest.raises(StateError, match="1 keys are null"):
        KeyIndex([KeyColumn.of("k", pa.array(["a", None]))])


def test_an_empty_index_has_no_key_and_a_null_column_meets_nothing() -> None:
    empty = KeyIndex([KeyColumn.of("k", pa.array([], pa.string()))])
    assert found(empty, [pa.array(["a", None])]) == [0, 0]
    assert found(KeyIndex([KeyColumn.of("k", pa.array([], pa.null()))]), [pa.array([1])]) == [0]
    assert found(KeyIndex([KeyColumn.of("k", pa.array([1, 2]))]), [pa.nulls(3)]) == [2, 2, 2]


def test_a_hundred_of_a_million_keys_are_found_without_a_look_at_the_others() -> None:
    n = 1_000_000
    order = np.random.default_rng(0).permutation(n)
    index = KeyIndex([KeyColumn.of("k", pa.array([f"item {number}" for number in order], pa.large_string()))])
    assert index._words.nbytes + index._rows.nbytes == 12 * n
    rows = np.random.default_rng(1).integers(0, n, 100)
    wanted = [f"item {order[row]}" for row in rows]
    assert found(index, [pa.array([*wanted, "item -1"])]) == [*rows, n]

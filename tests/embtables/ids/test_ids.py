"""Encoders: the whole int64 range, agreement with Python's integers, pinned vectors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embtables.errors import DataError
from embtables.ids import cross_ids, make_encoder
from embtables.ids.mix import mix, seeded_mix
from embtables.schema import Hash, Identity, MultiHash

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "encoders.json").read_text())
EDGES = [0, 1, -1, 2**63 - 1, -(2**63), 12345678901]
int64s = st.lists(st.sampled_from(EDGES) | st.integers(-(2**63), 2**63 - 1), max_size=50)


def python_mix(x: int) -> int:
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
    return x ^ (x >> 31)


@given(int64s, st.integers(0, 2**63 - 1), st.sampled_from([1, 7, 1000, 2**31, 2**40]))
def test_hash_is_the_mix_modulo_rows_for_every_int64(ids: list[int], seed: int, rows: int) -> None:
    got = make_encoder(Hash(seed=seed), rows, "f").encode(np.array(ids, np.int64))
    offset = (seed + 1) * 0x9E3779B97F4A7C15
    assert got.tolist() == [python_mix((i + offset) % 2**64) % rows for i in ids]


@given(int64s, st.integers(2, 5))
def test_multi_hash_gives_t_keys_side_by_side(ids: list[int], t: int) -> None:
    encoder = make_encoder(MultiHash(num_hashes=t), 1000)
    got = encoder.encode(np.array(ids, np.int64)).reshape(len(ids), encoder.num_keys)
    assert got.shape == (len(ids), t)
    assert ((got >= 0) & (got < 1000)).all()
    for row, i in zip(got, ids, strict=True):
        assert row.tolist() == encoder.encode(np.array([i], np.int64)).tolist()


def test_multi_hash_separates_ids_that_one_hash_would_merge() -> None:
    ids = np.arange(20_000)
    one = make_encoder(Hash(), 1000, "f").encode(ids)
    two = make_encoder(MultiHash(), 1000, "f").encode(ids).reshape(-1, 2)
    assert len(np.unique(one)) <= 1000
    assert len(np.unique(np.sort(two, axis=1), axis=0)) > 19_000


def test_identity_refuses_or_wraps_what_is_out_of_range() -> None:
    ids = np.array([0, 9, 10, -1, -(2**63), 2**63 - 1])
    with pytest.raises(DataError, match=r"feature item: id 10 is outside 0\.\.9 \(4 such ids"):
        make_encoder(Identity(), 10, "item").encode(ids)
    assert make_encoder(Identity(), 10, "item").encode(ids[:2]).tolist() == [0, 9]
    wrapped = make_encoder(Identity(out_of_range="modulo"), 10, "item").encode(ids)
    assert wrapped.tolist() == [int(i) % 2**64 % 10 for i in ids.tolist()]


@given(int64s, st.integers(0, 2**63 - 1))
def test_keys_turn_back_into_ids_where_no_two_ids_have_the_same_key(ids: list[int], seed: int) -> None:
    given_ids = np.array(ids, np.int64)
    for config in (Hash(seed=seed), Identity(), Identity(out_of_range="modulo")):
        encoder = make_encoder(config, None)
        back = encoder.decode(encoder.encode(given_ids))
        assert back is not None
        assert back.tolist() == ids
    assert make_encoder(Hash(seed=seed), 10).decode(given_ids) is None
    assert make_encoder(MultiHash(seed=seed), None).decode(given_ids) is None
    assert make_encoder(Identity(out_of_range="modulo"), 10).decode(given_ids) is None


@given(int64s)
def test_crosses_depend_on_order_and_on_every_part(ids: list[int]) -> None:
    a = np.array(ids, np.int64)
    b = a + np.int64(1) if len(a) else a
    assert np.array_equal(cross_ids(a, b), cross_ids(a, b))
    assert not (cross_ids(a, b) == cross_ids(b, a)).any()
    assert not (cross_ids(a, b) == cross_ids(a, a)).any()
    assert not (cross_ids(a, b, a) == cross_ids(a, b)).any()


def test_distinct_pairs_keep_distinct_crosses() -> None:
    a, b = np.repeat(np.arange(500), 500), np.tile(np.arange(500), 500)
    assert len(np.unique(cross_ids(a, b))) == 250_000


def test_pinned_vectors_never_change() -> None:
    ids = np.array(GOLDEN["ids"], np.int64)
    assert mix(ids.view(np.uint64)).tolist() == GOLDEN["mix"]
    assert seeded_mix(ids, 42).tolist() == GOLDEN["seeded_mix_42"]
    assert make_encoder(Hash(seed=3), 1_000_003, "f").encode(ids).tolist() == GOLDEN["hash_3"]
    assert make_encoder(MultiHash(num_hashes=3), 1_000_003, "f").encode(ids).tolist() == GOLDEN["multi_hash"]
    assert cross_ids(ids, ids[::-1].copy()).tolist() == GOLDEN["cross"]

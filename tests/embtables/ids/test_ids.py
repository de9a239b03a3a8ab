"""Encoders: the whole int64 range, agreement with Python's integers, pinned vectors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from embtables.errors import ConfigError, DataError
from embtables.ids import Encoder, EncoderSpec, cross_ids, encoder_of, make_encoder, register_encoder
from embtables.ids.encoder import unregister_encoder
from embtables.ids.mix import mix, seeded_mix
from embtables.schema import CollisionlessTable, EncoderConfig, Feature, FixedTable, Hash, Identity, MultiHash, Sgd

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


def apart(encoder: EncoderConfig, rows: int | None, feature: str = "item") -> Encoder[Any]:
    """The encoder of a feature of a table that does not share ids."""
    common: Any = {"name": "t", "dim": 4, "optimizer": Sgd(learning_rate=0.1), "share_ids": False}
    table = CollisionlessTable(**common) if rows is None else FixedTable(num_rows=rows, **common)
    return encoder_of(Feature(name=feature, table="t", encoder=encoder), table)


@given(int64s, st.sampled_from(["item", "seen", "item.2"]))
def test_kept_apart_a_key_is_the_mix_of_the_other_key_and_the_name(ids: list[int], feature: str) -> None:
    salt = xxhash.xxh3_64_intdigest(feature.encode())
    offset = (salt + 1) * 0x9E3779B97F4A7C15
    array = np.array(ids, np.int64)
    got = apart(Identity(), None, feature).encode(array)
    assert got.view(np.uint64).tolist() == [python_mix((i + offset) % 2**64) for i in ids]
    assert apart(Identity(), None, feature).ids_of(got).tolist() == ids  # type: ignore[union-attr]
    hashed = apart(Hash(seed=3), None, feature)
    assert hashed.ids_of(hashed.encode(array)).tolist() == ids  # type: ignore[union-attr]
    fixed = apart(Hash(seed=3), 1_000, feature)
    salted = np.array([python_mix((i + offset) % 2**64) for i in ids], np.uint64).view(np.int64)
    assert fixed.encode(array).tolist() == make_encoder(Hash(seed=3), 1_000).encode(salted).tolist()
    assert fixed.ids_of(fixed.encode(array)) is None


def test_kept_apart_features_share_no_keys_and_collide_no_more_than_other_ids_do() -> None:
    ids = np.arange(50_000)
    for encoder in (Identity(), Hash(), MultiHash()):
        item, seen = (apart(encoder, None, name).encode(ids) for name in ("item", "seen"))
        assert not set(item.tolist()) & set(seen.tolist())
    both = [apart(Hash(), 100_000, name).encode(ids) for name in ("item", "seen")]
    distinct = len(np.unique(np.concatenate(both)))
    one = len(np.unique(make_encoder(Hash(), 100_000).encode(np.arange(100_000))))
    assert abs(distinct - one) < 500, "as 100,000 different ids do"
    assert (both[0] == both[1]).mean() < 0.01


def test_kept_apart_is_refused_where_ids_are_row_numbers() -> None:
    class HalfConfig(EncoderConfig):
        kind: Literal["half"] = "half"

    class Half(Encoder[HalfConfig]):
        def keys(self, ids: Any) -> Any:
            return ids // 2

    register_encoder(EncoderSpec(HalfConfig, Half))
    try:
        with pytest.raises(ConfigError, match="feature item: share_ids: false does not go with encoder 'half'"):
            apart(HalfConfig(), 100)
        item, seen = (apart(HalfConfig(), None, name).encode(np.arange(4)) for name in ("item", "seen"))
        assert item[0] == item[1] != item[2] == item[3]
        assert not set(item.tolist()) & set(seen.tolist())
    finally:
        unregister_encoder("half")
    for wraps in ("error", "modulo"):
        with pytest.raises(ConfigError, match="encoder 'identity'"):
            apart(Identity(out_of_range=wraps), 100)  # type: ignore[arg-type]


def test_kept_apart_keys_are_pinned() -> None:
    ids = np.array(GOLDEN["ids"], np.int64)
    for name, encoder, rows in (
        ("apart_identity", Identity(), None),
        ("apart_hash_3", Hash(seed=3), None),
        ("apart_hash_3_fixed", Hash(seed=3), 1_000_003),
        ("apart_multi_hash_fixed", MultiHash(num_hashes=3), 1_000_003),
    ):
        assert apart(encoder, rows).encode(ids).tolist() == GOLDEN[name], name

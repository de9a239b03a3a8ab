"""Evolution of a schema: each refusal, word for word."""

from __future__ import annotations

import pytest

from embtables.errors import StateError
from embtables.schema import Hash, Identity, MultiHash
from embtables.state.evolve.evolution import StateSchema, evolve
from embtables.state.format.version import Version
from tests.state.evolve.schemas_for_tests import IDENTITY, feature, fixed, grows, schema

HASH = "{'kind': 'hash', 'seed': 0}"
REFUSED: dict[str, tuple[StateSchema, StateSchema, str]] = {
    "dim": (schema(grows()), schema(grows(dim=6)), "dim is 6 here, 4 there"),
    "fixed to collisionless": (schema(fixed()), schema(grows()), "is collisionless here, fixed there"),
    "collisionless to fixed": (schema(grows()), schema(fixed()), "is fixed here, collisionless there"),
    "rows of a hash": (
        schema(fixed(), feature()),
        schema(fixed(num_rows=1_800), feature()),
        "num_rows is 1,800 here, 9 there: the hash encoder of feature 'f' depends on num_rows, so ids "
        "would read other rows",
    ),
    "rows of several hashes": (
        schema(fixed(), feature(encoder=MultiHash())),
        schema(fixed(num_rows=8), feature(encoder=MultiHash())),
        "num_rows is 8 here, 9 there: the multi_hash encoder of feature 'f' depends on num_rows, so ids "
        "would read other rows",
    ),
    "rows combined in another way": (
        schema(fixed(), feature(encoder=MultiHash())),
        schema(fixed(), feature(encoder=MultiHash(combine="product"))),
        "feature 'f' has encoder {'kind': 'multi_hash', 'num_hashes': 2, 'seed': 0, 'combine': 'product'} here, "
        "{'kind': 'multi_hash', 'num_hashes': 2, 'seed': 0, 'combine': 'sum'} there: ids mean other keys",
    ),
    "rows of a modulo": (
        schema(fixed(), feature(encoder=Identity(out_of_range="modulo"))),
        schema(fixed(num_rows=10), feature(encoder=Identity())),
        "num_rows is 10 here, 9 there: the identity encoder of feature 'f' depends on num_rows, so ids "
        "would read other rows",
    ),
    "fewer rows": (
        schema(fixed(), IDENTITY),
        schema(fixed(num_rows=7), IDENTITY),
        "num_rows is 7 here, 9 there: rows 7 to 8 would be lost",
    ),
    "encoder": (
        schema(grows(), feature()),
        schema(grows(), IDENTITY),
        "feature 'f' has encoder {'kind': 'identity'} here, " + HASH + " there: ids mean other keys",
    ),
    "seed of an encoder": (
        schema(grows(), feature(), feature("g")),
        schema(grows(), feature(), feature("g", encoder=Hash(seed=2))),
        "feature 'g' has encoder {'kind': 'hash', 'seed': 2} here, " + HASH + " there: ids mean other keys",
    ),
    "buckets": (
        schema(grows(), feature(num_buckets=5)),
        schema(grows(), feature(num_buckets=6)),
        "feature 'f' has num_buckets 6 here, 5 there: ids mean other keys",
    ),
    "part of a time": (
        schema(grows(), feature(timestamp_part="hour")),
        schema(grows(), feature(timestamp_part="day")),
        "feature 'f' has timestamp_part day here, hour there: ids mean other keys",
    ),
    "cross": (
        schema(grows(), feature(cross=("a", "b"))),
        schema(grows(), feature(cross=("b", "a"))),
        "feature 'f' has cross ['b', 'a'] here, ['a', 'b'] there: ids mean other keys",
    ),
    "another feature that encodes otherwise": (
        schema(grows(), feature("f")),
        schema(grows(), feature("g", encoder=Hash(seed=1))),
        "no feature reads it with the encoder of a former feature: ids mean other keys",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_converted_is_refused_with_the_difference(case: str) -> None:
    was, now, text = REFUSED[case]
    with pytest.raises(StateError) as raised:
        evolve(Version({}), was, now)
    assert str(raised.value) == (
        "cannot go on under this configuration (here: the configuration, there: the version): "
        f"table t: {text}. To let a table begin afresh: --fresh t"
    )
    assert evolve(Version({}), was, now, ["t"])[0].tables == {}


def test_all_that_is_refused_is_reported_at_once() -> None:
    was = schema(grows(), grows(name="linear.t", dim=1), fixed(name="u"), feature("a"), feature("b", "u"))
    now = schema(
        grows(dim=5), grows(name="linear.t", dim=2), fixed(name="u", num_rows=3), feature("a"), feature("b", "u")
    )
    with pytest.raises(StateError) as raised:
        evolve(Version({}), was, now)
    for text in ("table t: dim is 5 here", "table linear.t: dim is 2 here", "table u: num_rows is 3 here"):
        assert text in str(raised.value)
    assert str(raised.value).endswith("To let a table begin afresh: --fresh t --fresh u")

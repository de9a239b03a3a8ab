"""Every option of the schema is classified by what it means for rows, and treated as it is classified.

Fails for an option that is new: classify it in embtables/state/evolve/options.py and give it a change here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import pytest

from embtables.errors import StateError
from embtables.ids import make_encoder
from embtables.rows.optimizers import OptimizerSpec, register_optimizer, specs, unregister_optimizer
from embtables.schema import (
    ENCODERS,
    Adagrad,
    CollisionlessTable,
    Feature,
    FixedTable,
    Identity,
    MinCount,
    OptimizerConfig,
    Probability,
    Uniform,
)
from embtables.state.evolve.evolution import Evolution, StateSchema
from embtables.state.evolve.options import ADMISSION, FEATURE, TABLE
from tests.state.evolve.schemas_for_tests import OPTIMIZERS, feature, fixed, grows, schema

# Each option with another value than the default; `name` and `table` match features, `encoder` has a test of its own.
FEATURE_CHANGES: dict[str, Any] = {
    "column": "other",
    "cross": ("a", "b"),
    "pooling": "mean",
    "max_length": 3,
    "weights_column": "w",
    "split": "|",
    "timestamp_part": "hour",
    "timestamp_zone": "Asia/Tokyo",
    "num_buckets": 5,
    "null_id": -1,
    "side": "user",
}
NEEDED = {"timestamp_zone": {"timestamp_part": "hour"}}  # options that go with others only
TABLE_CHANGES: dict[str, Any] = {
    "dim": 5,
    "num_rows": 12,
    "optimizer": Adagrad(learning_rate=0.7),
    "initializer": Uniform(low=0.0, high=1.0),
    "trainable": False,
    "non_finite_gradients": "raise",
    "share_ids": False,
    "admission": MinCount(count=2),
    "ttl_seconds": 9,
    "max_rows": 100,
    "cold_row": "trained",
    "max_clock_step_seconds": 7,
}


def outcome(was: StateSchema, now: StateSchema) -> tuple[str | None, list[str]]:
    """Why it is refused (None: it is not), and else the rules applied."""
    try:
        return None, [str(note) for note in Evolution(was, now).notes]
    except StateError as error:
        return str(error), []


def test_every_option_is_classified() -> None:
    assert FEATURE.keys() == Feature.model_fields.keys()
    assert TABLE.keys() == FixedTable.model_fields.keys() | CollisionlessTable.model_fields.keys()
    assert ADMISSION.keys() == MinCount.model_fields.keys() | Probability.model_fields.keys()


def test_every_option_has_a_change_here() -> None:
    assert FEATURE_CHANGES.keys() | {"name", "table", "encoder"} == Feature.model_fields.keys()
    assert TABLE_CHANGES.keys() | {"name", "kind"} == TABLE.keys()


@pytest.mark.parametrize("option", FEATURE_CHANGES)
@pytest.mark.parametrize("direction", ["set", "taken away"])
def test_an_option_of_a_feature_is_treated_as_it_is_classified(option: str, direction: str) -> None:
    both = NEEDED.get(option, {})
    plain, changed = (schema(grows(), feature("f", **both, **c)) for c in ({}, {option: FEATURE_CHANGES[option]}))
    refused, notes = outcome(*((plain, changed) if direction == "set" else (changed, plain)))
    if FEATURE[option] == "refused":
        assert refused is not None
        assert f"table t: feature 'f' has {option} " in refused
        return
    assert refused is None
    assert len(notes) == (FEATURE[option] == "noted")
    assert all(note.startswith("feature f: ") and option in note for note in notes)


def test_pieces_of_a_string_are_not_the_whole_string() -> None:
    """`split` was not compared, so that rows of whole strings were read by pieces of them."""
    for then, here in ((None, "|"), ("|", None), ("|", ",")):
        was, now = (schema(grows(), feature("f", split=s)) for s in (then, here))
        refused, _ = outcome(was, now)
        assert refused is not None
        assert f"feature 'f' has split {here} here, {then} there: ids mean other keys" in refused
    refused, _ = outcome(schema(grows(), feature("f")), schema(grows(), feature("g", split="|")))
    assert refused is not None
    assert "no feature there encodes as it does (split | here, None of 'f' there): ids mean other keys" in refused


def test_a_new_feature_may_share_a_table_under_a_meaning_that_its_rows_have() -> None:
    """One reader that encoded as before was enough, so that a renamed feature's rows were read by other pieces."""
    then = schema(grows(), feature("f"), feature("list", split="|"))
    for new in (feature("g"), feature("g", split="|")):
        here = schema(grows(), feature("f"), feature("list", split="|"), new)
        assert outcome(then, here) == (None, ["feature g: is new; its table's rows are as they were"])
    renamed = schema(grows(), feature("f"), feature("pieces", split=","))
    refused, _ = outcome(then, renamed)
    assert refused is not None
    assert "feature 'pieces' is new, and no feature there encodes as it does" in refused
    # Rows that no feature has trained mean what their first reader's ids do.
    unread = schema(grows(), grows(name="u"), feature("g", "u"))
    assert outcome(unread, schema(grows(), feature("f", split="|")))[0] is None


@pytest.mark.parametrize("option", TABLE_CHANGES)
@pytest.mark.parametrize("direction", ["set", "taken away"])
def test_an_option_of_a_table_is_refused_or_noted(option: str, direction: str) -> None:
    make = grows if option in CollisionlessTable.model_fields else fixed
    ids = feature("f", encoder=Identity())
    plain, changed = (schema(make(**c), ids) for c in ({}, {option: TABLE_CHANGES[option]}))
    refused, notes = outcome(*((plain, changed) if direction == "set" else (changed, plain)))
    if TABLE[option] == "refused" or option == "share_ids" or (option, direction) == ("num_rows", "taken away"):
        assert refused is not None
        assert f"table t: {option} is " in refused
        return
    assert refused is None
    assert notes
    assert all(note.startswith("table t: ") for note in notes)
    assert option in notes[0]


class Tomorrow(CollisionlessTable):
    """A table of a build to come."""

    quantised: bool = False


class FeatureOfTomorrow(Feature):
    """A feature of a build to come."""

    language: str | None = None


class AdagradOfTomorrow(OptimizerConfig):
    """An optimizer of a build to come, or of a user."""

    kind: Literal["adagrad_of_tomorrow"] = "adagrad_of_tomorrow"
    eps: float = 0.1
    centred: bool = False
    power: float = 0.5


def _no_step(*arguments: Any) -> None:
    raise AssertionError("nothing is trained here")


@pytest.fixture
def tomorrow() -> Iterator[None]:
    register_optimizer(OptimizerSpec(AdagradOfTomorrow, _no_step, may_change=["eps"]))
    yield
    unregister_optimizer("adagrad_of_tomorrow")


class MinCountOfTomorrow(MinCount):
    """An admission policy of a build to come."""

    halved_daily: bool = False


def with_(**changes: Any) -> CollisionlessTable:
    """A table with sections that this build does not know as such."""
    return grows().model_copy(update=changes)


def test_every_option_of_an_optimizer_is_classified() -> None:
    """New: an option of an optimizer of the package. Say in its OptimizerSpec whether it may change."""
    common = {"learning_rate", "weight_decay"}
    known = {"sgd": set(), "adagrad": {"eps"}, "rowwise_adagrad": {"eps"}, "adam": {"eps", "beta1", "beta2"}}
    assert {spec.kind: spec.options_that_may_change - common for spec in specs()} == known
    assert all(spec.config.model_fields.keys() == {"kind"} | spec.options_that_may_change for spec in specs())


def test_an_option_of_an_optimizer_may_change_where_its_spec_says_so(tomorrow: None) -> None:
    def with_options(**options: Any) -> StateSchema:
        return schema(with_(optimizer=AdagradOfTomorrow(**{"learning_rate": 0.1, **options})))

    for name, then, here in (("learning_rate", 0.1, 0.2), ("weight_decay", 0.0, 0.2), ("eps", 0.1, 0.2)):
        refused, notes = outcome(with_options(**{name: then}), with_options(**{name: here}))
        assert refused is None
        assert notes == [f"table t: optimizer {name} {then} -> {here}: rows and optimizer state stay"]
    for name, then, here in (("power", 0.5, 0.25), ("centred", False, True)):
        refused, _ = outcome(with_options(**{name: then}), with_options(**{name: here}))
        assert refused is not None
        assert (
            f"table t: optimizer.{name} is {here} here, {then} there: no rule says what becomes of the optimizer state "
            "(may_change of its OptimizerSpec)"
        ) in refused


def test_an_option_that_no_rule_knows_is_refused() -> None:
    common: Any = {"name": "t", "dim": 4, "optimizer": OPTIMIZERS[1]}
    tables = [Tomorrow(**common, quantised=q) for q in (False, True)]
    features = [FeatureOfTomorrow(name="f", table="t", language=lang) for lang in (None, "de")]
    halved = [with_(admission=MinCountOfTomorrow(count=3, halved_daily=h)) for h in (False, True)]
    for (was, now), text in (
        ([schema(t) for t in tables], "table t: quantised is True here, False there: no rule says"),
        ([schema(grows(), f) for f in features], "feature 'f' has language de here, None there: ids mean other keys"),
        ([schema(t) for t in halved], "table t: admission.halved_daily is True here, False there: no rule says"),
    ):
        refused, _ = outcome(was, now)
        assert refused is not None
        assert text in refused


# What an encoder does with ids that no row is of.
HARMLESS_OF_ENCODERS = {("identity", "out_of_range")}
ENCODER_CHANGES: dict[tuple[str, str], Any] = {
    ("identity", "out_of_range"): "modulo",
    ("hash", "seed"): 3,
    ("multi_hash", "seed"): 3,
    ("multi_hash", "num_hashes"): 4,
    ("multi_hash", "combine"): "mean",
}


def test_every_option_of_an_encoder_is_part_of_its_meaning() -> None:
    options = {(kind, name) for kind in ("identity", "hash", "multi_hash") for name in ENCODERS[kind].model_fields}
    assert {(kind, name) for kind, name in options if name != "kind"} == ENCODER_CHANGES.keys()
    meanings = [make_encoder(ENCODERS[kind](kind=kind), 100).meaning() for kind in ("identity", "hash", "multi_hash")]
    assert all(a != b for i, a in enumerate(meanings) for b in meanings[:i])
    for (kind, name), value in ENCODER_CHANGES.items():
        then, here = ENCODERS[kind](kind=kind), ENCODERS[kind](**{"kind": kind, name: value})
        same = make_encoder(then, 100).meaning() == make_encoder(here, 100).meaning()
        assert same == ((kind, name) in HARMLESS_OF_ENCODERS), (kind, name)
        refused, _ = outcome(*(schema(grows(), feature("f", encoder=e)) for e in (then, here)))
        assert (refused is None) == same

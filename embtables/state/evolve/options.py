"""What happens to a table's rows when an option of the schema differs: each option has its treatment here.

An option that is not listed is refused, so that a new option cannot silently give rows another meaning.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from embtables.rows.optimizers import optimizer_spec
from embtables.schema import CollisionlessTable, Feature, Model, Table

Treatment = Literal["harmless", "noted", "ruled", "refused"]
# harmless: neither rows nor what a model makes of them depend on it
# noted: rows stay and mean what they meant; something else differs, which a note says
# ruled: code beside this file decides: converts, or refuses some changes
# refused: rows would be read under another meaning

FEATURE: Mapping[str, Treatment] = {
    "name": "ruled",  # by which features are matched
    "table": "ruled",
    "encoder": "ruled",  # its `meaning` is compared
    "column": "noted",  # that its ids mean the same is the user's word
    "pooling": "noted",
    "max_length": "noted",
    "weights_column": "noted",
    "null_id": "noted",
    "side": "harmless",
    "cross": "refused",
    "split": "refused",
    "timestamp_part": "refused",
    "timestamp_zone": "refused",
    "num_buckets": "refused",
}

TABLE: Mapping[str, Treatment] = {
    "name": "ruled",  # by which tables are matched
    "kind": "refused",
    "dim": "refused",
    "num_rows": "ruled",
    "optimizer": "ruled",
    "initializer": "noted",
    "trainable": "noted",
    "non_finite_gradients": "noted",
    "share_ids": "ruled",
    "admission": "ruled",
    "ttl_seconds": "ruled",
    "max_rows": "ruled",
    "cold_row": "ruled",
    "max_clock_step_seconds": "noted",
}

ADMISSION: Mapping[str, Treatment] = {
    "kind": "ruled",
    "count": "ruled",
    "max_waiting": "ruled",
    "counting": "ruled",
    "probability": "ruled",
}


def differing(then: Model, here: Model, options: Mapping[str, Treatment], treatment: Treatment) -> list[str]:
    """Options of this treatment in which two models differ; one that only one of them has counts as None there."""
    names = dict.fromkeys((*type(here).model_fields, *type(then).model_fields))
    return [
        name
        for name in names
        if options.get(name, "refused") == treatment and getattr(then, name, None) != getattr(here, name, None)
    ]


def refused_of_table(then: Table, here: Table) -> list[str]:
    """Why a table's rows cannot be kept, whatever its features are, in words."""
    if then.kind != here.kind:
        return [f"is {here.kind} here, {then.kind} there"]
    return [
        *_refused("", then, here, TABLE),
        *_refused_of_keys(then, here),
        *_refused_of_optimizer(then, here),
        *_refused_of_admission(then, here),
    ]


def _refused(section: str, then: Model, here: Model, options: Mapping[str, Treatment]) -> list[str]:
    return [
        _differs(section + name, getattr(then, name, None), getattr(here, name, None))
        + ("" if name in options else ": no rule says what becomes of the rows")
        for name in differing(then, here, options, "refused")
    ]


def _refused_of_keys(then: Table, here: Table) -> list[str]:
    """By default, and if asked, features share ids."""
    if then.shares_ids == here.shares_ids:
        return []
    return [f"{_differs('share_ids', then.shares_ids, here.shares_ids)}: ids mean other keys"]


def _refused_of_optimizer(then: Table, here: Table) -> list[str]:
    """What its spec does not name may give the state of a rule another meaning. Another rule is converted."""
    was, now = then.optimizer, here.optimizer
    if was.kind != now.kind:
        return []
    harmless = optimizer_spec(now).options_that_may_change
    names = dict.fromkeys((*type(now).model_fields, *type(was).model_fields))
    values = {name: (getattr(was, name, None), getattr(now, name, None)) for name in names}
    return [
        f"{_differs(f'optimizer.{name}', *both)}: no rule says what becomes of the optimizer state "
        "(may_change of its OptimizerSpec)"
        for name, both in values.items()
        if both[0] != both[1] and name not in harmless
    ]


def _refused_of_admission(then: Table, here: Table) -> list[str]:
    if not isinstance(then, CollisionlessTable) or not isinstance(here, CollisionlessTable):
        return []
    was, now = then.admission, here.admission
    return [] if was is None or now is None else _refused("admission.", was, now, ADMISSION)


def refused_of_feature(then: Feature, here: Feature) -> list[str]:
    """Options of a feature under which its ids mean other keys, in words."""
    return [
        f"feature '{here.name}' has {name} {shown(getattr(here, name))} here, {shown(getattr(then, name))} there: "
        "ids mean other keys"
        for name in differing(then, here, FEATURE, "refused")
    ]


def meaning_of_ids(feature: Feature, encoder: str) -> dict[str, str]:
    """What the keys of a feature mean: its encoder's meaning, and the options that make ids of values."""
    names = [name for name in type(feature).model_fields if FEATURE.get(name, "refused") == "refused"]
    return {"encoder": encoder} | {name: shown(getattr(feature, name)) for name in names}


def refused_of_new_feature(feature: str, ours: Mapping[str, str], theirs: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Why a feature may not read rows that others have trained, in words: its ids mean other keys than those of any.

    Args:
        ours: what its keys mean.
        theirs: the same of each feature that trained them.
    """
    different = [
        [
            f"{option} {ours.get(option)} here, {of.get(option)} of '{name}' there"
            for option in dict.fromkeys((*ours, *of))
            if ours.get(option) != of.get(option)
        ]
        for name, of in theirs.items()
    ]
    nearest: list[str] = min(different, key=len, default=[])
    reason = f"is new, and no feature there encodes as it does ({'; '.join(nearest)}): ids mean other keys"
    return [f"feature '{feature}' {reason}"] if nearest else []


def notes_of_feature(then: Feature, here: Feature) -> list[str]:
    """What differs in a feature whose table's rows stay, in words."""
    notes = []
    for name in differing(then, here, FEATURE, "noted"):
        ours, theirs = shown(getattr(here, name)), shown(getattr(then, name))
        if name == "column":
            notes.append(f"reads column {ours} now, {theirs} before: its ids must mean the same")
        else:
            more = ", nulls read another row" if name == "null_id" else ""
            notes.append(f"{name} {theirs} -> {ours}: rows stay{more}")
    return notes


def shown(value: object) -> str:
    """An option's value for a message."""
    return str(list(value) if isinstance(value, tuple) else value)


def _differs(name: str, then: object, here: object) -> str:
    return f"{name} is {shown(here)} here, {shown(then)} there"

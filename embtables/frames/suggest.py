"""A schema suggested from a sample: which columns are ids, which are numbers, which is the time, what is left out.

    label                    0/1 or boolean, or any number with `positive_above`
    text, booleans, integers features, each with a collisionless table of its own
    lists of ids             features whose rows are averaged
    text with `|` in it      the same, split
    floats, decimals         dense columns; so are integers that look like an amount (see `_is_amount`)
    timestamps               event_time, the first one
    left out, with a reason  what gives the label away, is constant, is another value in every row, or is prose

A suggestion is a beginning: `ids`, `numbers` and `ignore` say what the data cannot. It depends on the sample alone.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embtables.errors import ConfigError, DataError
from embtables.frames.facts import ColumnFacts, facts_of, plain
from embtables.frames.leaks import leak_of
from embtables.frames.sample import Sample

LONGEST_LIST = 50
PROSE_LETTERS = 40  # mean length of a text that is no id
FEW = 50  # distinct values that a number may have and still be an id
_TIME_NAMES = ("event_time", "timestamp", "time", "ts", "date", "datetime", "created_at")
_UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_FIRST_TIME, _LAST_TIME = datetime(1990, 1, 1, tzinfo=UTC).timestamp(), datetime(2100, 1, 1, tzinfo=UTC).timestamp()
_SIDES = {
    "user": ("user", "customer", "member", "visitor", "viewer", "client"),
    "item": ("item", "movie", "product", "article", "ad", "video", "song", "book", "sku", "stock"),
}
_OPTIMIZER = {"kind": "adagrad", "learning_rate": 0.05}


@dataclass
class Suggestion:
    """What a sample suggests.

    Attributes:
        content: the sections of a `Schema`, without defaults.
        facts: of every column.
        left_out: columns that are not used, with the reason.
        leaks: those of them that give the label away.
        positive_share: of the labels, by column.
    """

    content: dict[str, Any]
    facts: dict[str, ColumnFacts]
    left_out: dict[str, str] = field(default_factory=dict)
    leaks: dict[str, str] = field(default_factory=dict)
    positive_share: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Wishes:
    """What the caller knows. Names of columns that are not there are refused.

    Attributes:
        positive_above: a label above it is a positive.
        dim: values per row of every table.
        ids, numbers: columns that are features, or dense columns, whatever they look like.
        ignore: columns to leave out.
    """

    labels: tuple[str, ...] = ()
    positive_above: float | None = None
    dim: int = 16
    ids: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()


def suggest(sample: Sample, wishes: Wishes) -> Suggestion:
    """The schema that a sample suggests.

    Raises:
        ConfigError: a column that is named is not there, or the label needs `positive_above`.
        DataError: the label cannot be one, or no column can be a feature.
    """
    names = sample.table.column_names
    for name in (*wishes.labels, *wishes.ids, *wishes.numbers, *wishes.ignore):
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(names[:40])}"
            why = sample.clashing.get(name)
            raise ConfigError(why or f"there is no such column; {hint}", column=name)
    facts = {name: facts_of(sample.table.column(name)) for name in names}
    positives = {name: _positive(sample.table.column(name), facts[name], name, wishes) for name in wishes.labels}
    found = Suggestion(
        {}, facts, dict(sample.clashing), positive_share={name: float(mask.mean()) for name, mask in positives.items()}
    )
    labels: list[dict[str, Any]] = [{"column": name} for name in wishes.labels]
    if wishes.positive_above is not None:
        labels = [{**label, "positive_above": wishes.positive_above} for label in labels]
    rest = [name for name in names if name not in wishes.labels]
    for name in rest:
        if name in wishes.ignore:
            found.left_out[name] = "as you wish"
        elif name not in (*wishes.ids, *wishes.numbers):
            for mask in positives.values():
                leak = leak_of(sample.table.column(name), facts[name], mask)
                if leak is not None:
                    found.leaks[name] = found.left_out[name] = leak
    _assign([name for name in rest if name not in found.left_out], found, wishes)
    found.content["labels"] = labels
    return found


def _positive(column: pa.ChunkedArray, facts: ColumnFacts, name: str, wishes: Wishes) -> npt.NDArray[np.bool_]:
    """(rows,) which rows are positives; a null is none."""
    if facts.kind not in ("integer", "number", "boolean"):
        raise DataError(f"holds {facts.type}; a label is a number, 0 or 1, or a boolean", column=name)
    if not facts.values:
        raise DataError("holds nulls alone; nothing can be learned from it", column=name)
    values = plain(column).cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    if wishes.positive_above is None and facts.kind != "boolean" and not {facts.low, facts.high} <= {0, 1}:
        raise ConfigError(
            f"holds {facts.distinct:,} values from {facts.low} to {facts.high}; give positive_above: a value above it "
            "is a positive",
            column=name,
        )
    above = 0.5 if wishes.positive_above is None else wishes.positive_above
    positive: npt.NDArray[np.bool_] = np.nan_to_num(values, nan=-np.inf) > above
    if positive.all() or not positive.any():
        raise DataError(f"every row of the label is {int(positive[0])}; nothing can be learned from it", column=name)
    return positive


def _assign(names: list[str], found: Suggestion, wishes: Wishes) -> None:
    """Each column to a feature, a dense column, the time, or none."""
    features: list[dict[str, Any]] = []
    dense: list[dict[str, Any]] = []
    time = _time_of(names, found.facts)
    taken: set[str] = set()
    for name in names:
        facts = found.facts[name]
        reason = None if name in (*wishes.ids, *wishes.numbers) else _useless(name, facts, time)
        if time is not None and name == time["column"] and name not in (*wishes.ids, *wishes.numbers):
            found.content["event_time"] = time
        elif reason is not None:
            found.left_out[name] = reason
        elif name in wishes.numbers or (name not in wishes.ids and _is_dense(name, facts)):
            dense.append(_dense(name, facts))
        else:
            features.append(_feature(name, facts, _fitting_name(name, taken)))
    if not features:
        raise DataError(
            f"no column can be a feature: {_reasons(found.left_out, dense)}; name some as ids", table="data"
        )
    tables = [{"name": feature["table"], "dim": wishes.dim, "optimizer": dict(_OPTIMIZER)} for feature in features]
    found.content = {"tables": tables, "features": features, "dense": dense, **found.content}


def _reasons(left_out: dict[str, str], dense: list[dict[str, Any]]) -> str:
    reasons = [f"{name} {reason}" for name, reason in left_out.items()]
    return ", ".join([*reasons, *(f"{each['column']} is a number" for each in dense)][:8])


def _useless(name: str, facts: ColumnFacts, time: dict[str, Any] | None) -> str | None:
    """Why a column is left out; None: it is not."""
    checks: list[tuple[Callable[[], bool], str]] = [
        (lambda: not name, "has no name"),
        (lambda: facts.kind == "other", f"holds {facts.type}, which is neither ids nor numbers"),
        (lambda: facts.kind == "numbers", "holds lists of numbers"),
        (lambda: facts.distinct == 0, "holds nulls alone"),
        (lambda: facts.distinct == 1 and not facts.nulls, "is the same in every row"),
        (lambda: facts.kind == "time", f"is a further time, beside '{time['column'] if time else name}'"),
        (lambda: facts.times_as_text, "holds times as text; cast it to a timestamp"),
        (lambda: facts.kind in ("text", "integer") and _is_row_id(facts), "has another value in every row"),
        (lambda: facts.kind == "text" and _is_prose(facts), "is prose"),
    ]
    return next((reason for check, reason in checks if check()), None)


def _is_row_id(facts: ColumnFacts) -> bool:
    return facts.values > FEW and facts.distinct == facts.values


def _is_prose(facts: ColumnFacts) -> bool:
    return facts.length is not None and facts.length[0] > PROSE_LETTERS and facts.distinct > facts.values // 10


def _is_dense(name: str, facts: ColumnFacts) -> bool:
    return facts.kind == "number" or (facts.kind == "integer" and not _is_id(name) and _is_amount(facts))


def _is_id(name: str) -> bool:
    """Whether a name ends in `id`: user_id, itemId, ID."""
    return re.search(r"(^|[_\W])ids?$|I[dD]s?$", name) is not None


def _is_amount(facts: ColumnFacts) -> bool:
    """Whether integers look like counts or prices: many values, gaps between them, and most of them near the least.

    Ids that were counted up have no gaps; those that were hashed are spread over their whole range.
    """
    if facts.distinct <= FEW or facts.quantiles is None:
        return False
    span = facts.high - facts.low
    return bool(facts.distinct < span / 2 and facts.quantiles[1] - facts.low < span / 10)


def _dense(name: str, facts: ColumnFacts) -> dict[str, Any]:
    """Standardised, or by rank where a few values are far from the others."""
    found: dict[str, Any] = {"column": name, "transforms": ["standardise"]}
    if facts.quantiles is not None:
        low, middle, high = facts.quantiles
        spread = max(high - low, 1e-12)
        if facts.high - facts.low > 10 * spread or abs(middle - low) < 0.1 * spread:
            found["transforms"] = ["quantile"]
        if facts.nulls:
            found["fill_null"] = middle
    return found


def _feature(name: str, facts: ColumnFacts, fitting: str) -> dict[str, Any]:
    found: dict[str, Any] = {"name": fitting}
    if fitting != name:
        found["column"] = name
    found["table"] = fitting
    if facts.kind in ("ids", "texts"):
        found |= {"pooling": "mean", "max_length": LONGEST_LIST}
    elif facts.kind == "text" and facts.separated > 0.1:
        found |= {"split": "|", "pooling": "mean", "max_length": LONGEST_LIST}
    words = re.split(r"[_\W]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower())
    side = next((side for side, known in _SIDES.items() if set(words) & set(known)), None)
    return found if side is None else {**found, "side": side}


def _fitting_name(name: str, taken: set[str]) -> str:
    """The column's name if features may be called so, else one like it that is free."""
    fitting = re.sub(r"[^A-Za-z0-9_.\-]", "_", name)[:120]
    if re.match(r"[A-Za-z_]", fitting) is None or fitting.startswith("linear."):
        fitting = f"_{fitting}"
    number, base = 2, fitting
    while fitting in taken:
        fitting, number = f"{base}_{number}", number + 1
    taken.add(fitting)
    return fitting


def _time_of(names: list[str], facts: dict[str, ColumnFacts]) -> dict[str, Any] | None:
    """The event time: a timestamp without nulls, or integers called like one that are seconds since 1970 or so."""
    order = sorted(names, key=lambda name: name.lower() not in _TIME_NAMES)
    for name in order:
        of = facts[name]
        if of.kind == "time" and not of.nulls and of.distinct > 1 and _can_be_time(of.high):
            return {"column": name}
    for name in order:
        unit = _unit(name, facts[name])
        if unit is not None:
            return {"column": name, "unit": unit}
    return None


def _can_be_time(moment: Any) -> bool:
    return isinstance(moment, date) and moment.year < 2200


def _unit(name: str, facts: ColumnFacts) -> str | None:
    words = re.split(r"[_\W]+", name.lower())
    if facts.kind != "integer" or facts.nulls or facts.distinct < 2 or not set(words) & {*_TIME_NAMES, "at"}:
        return None
    fits = (unit for unit, per in _UNITS.items() if _FIRST_TIME * per <= facts.low <= facts.high <= _LAST_TIME * per)
    return next(fits, None)

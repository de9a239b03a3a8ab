"""What the values of a log's columns are made of: `data.join` and `data.prepare` make columns of their own.

Two configurations may name the same column and yet read other values in it. Where files lie is not compared, neither
the log's nor a side table's: that a column of them means what it meant is the user's word.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from embtables.pipelines.config import RunConfig
from embtables.schema import Join, LogConfig, SampledNegatives
from embtables.schema.prepare import DERIVED_COLUMNS
from embtables.state.evolve.evolution import Note


@dataclass(frozen=True, slots=True)
class OtherOrigin:
    """What a column's values are made of in two configurations, in words."""

    then: str
    here: str

    def __str__(self) -> str:
        return f"is of {self.here} here, of {self.then} there"


def other_origins(then: RunConfig, here: RunConfig) -> dict[str, OtherOrigin]:
    """The columns that features, dense columns and labels of `here` read, if their values are made of something else.

    A side table of which all columns are taken may have a column or not. Where it is only added or removed, its columns
    count as the log's.
    """
    columns = [column for feature in here.features for column in feature.columns]
    columns += [dense.column for dense in here.dense] + [label.column for label in here.labels]
    found = {}
    for column in dict.fromkeys(columns):
        ours, theirs = _origins(column, here.data), _origins(column, then.data)
        if not set(ours) <= set(theirs) and not set(theirs) <= set(ours):
            found[column] = OtherOrigin(then=" or ".join(theirs), here=" or ".join(ours))
    return found


def notes_of_features(then: RunConfig, here: RunConfig, others: Mapping[str, OtherOrigin]) -> list[Note]:
    """As for another `column` of a feature: rows stay, and that its ids mean the same is the user's word."""
    before = {feature.name: feature.columns for feature in then.features}
    return [
        Note(
            f"feature {feature.name}",
            f"its column {column} is of {others[column].here} now, of {others[column].then} before: "
            "its ids must mean the same",
        )
        for feature in here.features
        for column in feature.columns
        if column in others and column in before.get(feature.name, ())
    ]


def _origins(column: str, data: LogConfig) -> list[str]:
    """What a column may be of: one, if the configuration alone says it."""
    # A key is the log's column, also where a join lists it among its columns.
    joins = [j for j in data.join if j.key != column]
    named = [_of_join(j, column) for j in joins if j.columns and column in {j.prefix + name for name in j.columns}]
    if named:
        return named
    possible = [_of_join(j, column) for j in joins if j.columns is None and column.startswith(j.prefix)]
    return [_of_log(column, data.prepare), *possible]


def _of_join(join: Join, column: str) -> str:
    key = join.key if join.side_key in (None, join.key) else f"{join.key} = {join.side_key}"
    return f"data.join by {key} (its {column.removeprefix(join.prefix)})"


def _of_log(column: str, prepare: SampledNegatives | None) -> str:
    if prepare is None:
        return "the log"
    for feature in prepare.running:
        if feature.name == column:
            told = feature.model_dump(mode="json", exclude_defaults=True, exclude={"name"})
            return f"data.prepare.running ({told}, group: {prepare.group}, event_time: {prepare.event_time})"
    # Lines of a group happen at the time of its first one.
    options = ("group",) if column == prepare.event_time else DERIVED_COLUMNS.get(column)
    if options is None:
        return "the log"
    return " ".join(["data.prepare", *([f"({_shown(prepare, options)})"] if options else [])])


def _shown(prepare: SampledNegatives, options: tuple[str, ...]) -> str:
    return ", ".join(f"{option}: {getattr(prepare, option)}" for option in options)

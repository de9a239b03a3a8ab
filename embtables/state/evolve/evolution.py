"""State under a changed schema: what of a version a new configuration takes over, by the rules of docs/format.md.

`Evolution` decides from the two configurations alone and refuses by name; `evolve` then converts a snapshot's tables.
options.py lists what each option of the schema means for rows; what is not listed is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from embtables.errors import ConfigError, StateError
from embtables.ids import Artifacts, make_encoder
from embtables.rows.content import TableContent
from embtables.rows.stored_table import StoredTable
from embtables.schema import Feature, FixedTable, Table
from embtables.schema.schema import LINEAR_PREFIX
from embtables.state.evolve.conversion import Conversion
from embtables.state.evolve.options import (
    meaning_of_ids,
    notes_of_feature,
    refused_of_feature,
    refused_of_new_feature,
    refused_of_table,
)
from embtables.state.format.version import Version


@dataclass(frozen=True, slots=True)
class Note:
    """A rule that was applied.

    Attributes:
        subject: `table item`, `feature seen`.
        text: what happens to it.
    """

    subject: str
    text: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.text}"


@dataclass(frozen=True, slots=True)
class StateSchema:
    """Tables as they are in files, and the features that read them.

    Attributes:
        artifacts: by feature the data of its encoder in the version; what is not named is of a new run.
    """

    tables: tuple[StoredTable, ...]
    features: tuple[Feature, ...]
    artifacts: Mapping[str, Artifacts] = field(default_factory=dict)

    def readers(self, table: str) -> list[Feature]:
        """The features of a table."""
        return [feature for feature in self.features if feature.table == table]

    def meanings(self, table: Table) -> dict[str, str]:
        """By feature of a table what its encoder's keys mean."""
        return {
            f.name: str(make_encoder(f.encoder, table.key_range, f.name, self.artifacts.get(f.name)).meaning())
            for f in self.readers(table.name)
        }


class Evolution:
    """What happens to every table between two schemas.

    Args:
        was: of the version.
        now: of the configuration that continues from it.
        fresh: tables that begin afresh, whatever the version holds of them.

    Attributes:
        notes: every rule applied, the same for the same schemas; none if nothing differs.
        kept: how the content of each table that goes on is converted.

    Raises:
        ConfigError: `fresh` names a table that does not exist.
        StateError: something differs that no rule converts; all of it is reported, both values each.
    """

    def __init__(self, was: StateSchema, now: StateSchema, fresh: Collection[str] = ()) -> None:
        there, here = ({t.config.name: t for t in schema.tables} for schema in (was, now))
        for name in fresh:
            if name not in here:
                raise ConfigError(f"there is no such table to begin afresh; there are: {', '.join(here)}", table=name)
        self.notes: list[Note] = []
        self.kept: dict[str, Conversion] = {}
        refused: dict[str, list[str]] = {}
        for name, table in here.items():
            if name in there and name not in fresh:
                wrong = _refusals(there[name].config, table.config, was, now)
                if wrong:
                    refused[name] = wrong
                else:
                    self.kept[name] = Conversion(there[name], table)
                    self._note(name, self.kept[name].notes)
            else:
                self._note(name, ["begins afresh, as asked" if name in there else "is new: it begins afresh"])
        for name in there:
            if name not in here:
                self._note(name, ["is not in the configuration: its rows are dropped"])
        if refused:
            reasons = "; ".join(f"table {name}: {reason}" for name, wrong in refused.items() for reason in wrong)
            # First-order weights begin afresh with their table.
            options = dict.fromkeys(f"--fresh {name.removeprefix(LINEAR_PREFIX)}" for name in refused)
            raise StateError(
                "cannot go on under this configuration (here: the configuration, there: the version): "
                f"{reasons}. To let a table begin afresh: {' '.join(options)}"
            )
        apart = {table.config.name for table in now.tables if not table.config.shares_ids}
        self.notes += _feature_notes(was.features, now.features, apart)

    def _note(self, table: str, texts: Sequence[str]) -> None:
        self.notes += [Note(f"table {table}", text) for text in texts]

    def content(self, table: str, content: TableContent) -> TableContent:
        """What a kept table begins with; `content` is all that it held."""
        return self.kept[table].apply(content)


def evolve(
    version: Version, was: StateSchema, now: StateSchema, fresh: Collection[str] = ()
) -> tuple[Version, list[Note]]:
    """A snapshot under another schema: the tables that go on, converted, and the rules applied.

    Tables that begin afresh are not in it; tensors and content are as they were.

    Raises:
        ConfigError, StateError: see Evolution.
    """
    plan = Evolution(was, now, fresh)
    tables = {name: plan.content(name, version.tables[name]) for name in plan.kept}
    return replace(version, tables=tables), plan.notes


def _refusals(then: Table, here: Table, was: StateSchema, now: StateSchema) -> list[str]:
    """Why a table's rows cannot go on."""
    found = refused_of_table(then, here)
    if then.kind != here.kind:
        return found
    if isinstance(then, FixedTable) and isinstance(here, FixedTable) and then.num_rows != here.num_rows:
        found += _num_rows(then.num_rows, here.num_rows, [*was.readers(then.name), *now.readers(here.name)])
    return found + _meanings(then, here, was, now)


def _num_rows(then: int, here: int, readers: list[Feature]) -> list[str]:
    differ = f"num_rows is {here:,} here, {then:,} there"
    for feature in readers:
        if make_encoder(feature.encoder, here, feature.name).uses_key_range:
            how = f"the {feature.encoder.kind} encoder of feature '{feature.name}' depends on num_rows"
            return [f"{differ}: {how}, so ids would read other rows"]
    return [f"{differ}: rows {here:,} to {then - 1:,} would be lost"] if here < then else []


def _meanings(then: Table, here: Table, was: StateSchema, now: StateSchema) -> list[str]:
    """Features whose ids would read rows that other ids have trained."""
    found, before = [], {feature.name: feature for feature in was.readers(then.name)}
    encoders, encoders_then = now.meanings(here), was.meanings(then)
    known = {name: meaning_of_ids(feature, encoders_then[name]) for name, feature in before.items()}
    for feature in now.readers(here.name):
        old, ours = before.get(feature.name), encoders[feature.name]
        if old is None:
            found += refused_of_new_feature(feature.name, meaning_of_ids(feature, ours), known)
            continue
        theirs = encoders_then[feature.name]
        if ours != theirs:
            found.append(f"feature '{feature.name}' has encoder {ours} here, {theirs} there: ids mean other keys")
        found += refused_of_feature(old, feature)
    return found


def _feature_notes(was: Sequence[Feature], now: Sequence[Feature], apart: Collection[str]) -> list[Note]:
    """What happens to features; `apart` are tables in which each feature has keys of its own."""
    there, here = ({f.name: f for f in features if not _is_copy(f, features)} for features in (was, now))
    own = {n: ", and it has keys of its own" if here[n].table in apart else "" for n in here}
    notes = [Note(f"feature {n}", f"is new; its table's rows are as they were{own[n]}") for n in here if n not in there]
    notes += [
        Note(f"feature {n}", "is not in the configuration; its table's rows stay if the table does")
        for n in there
        if n not in here
    ]
    for name in (n for n in here if n in there):
        ours, theirs = here[name], there[name]
        if ours.table.removeprefix(LINEAR_PREFIX) != theirs.table.removeprefix(LINEAR_PREFIX):
            notes.append(Note(f"feature {name}", f"reads table {ours.table} now, {theirs.table} before"))
        notes += [Note(f"feature {name}", text) for text in notes_of_feature(theirs, ours)]
    return notes


def _is_copy(feature: Feature, features: Sequence[Feature]) -> bool:
    """Whether it is the second of its name: first-order weights have their features' names."""
    return next(other for other in features if other.name == feature.name) is not feature

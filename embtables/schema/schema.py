"""`Schema`: tables, features, dense columns, labels and time of one model, validated as a whole."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import Field, model_validator

from embtables.errors import ConfigError
from embtables.frames.sample import SAMPLE_ROWS, sample_of
from embtables.frames.suggest import Wishes, suggest
from embtables.given import as_integer, as_names, shown
from embtables.schema.base import Model, Name
from embtables.schema.encoders import Identity
from embtables.schema.features import DenseColumn, EventTime, Feature, Label
from embtables.schema.tables import FixedTable, Table, Zeros
from embtables.schema.text import validate

LINEAR_PREFIX = "linear."


class Schema(Model):
    """What a model reads of a row: its features and their tables, dense columns, and beside them labels, weight, time.

    It does not say where rows come from (`LogConfig`) nor how to train on them (`RunConfig`), so that a version can
    record it and a server can score by it. Scoring needs neither labels nor weight nor time. Frozen.

    Example:
        >>> from embtables.schema import Feature, Schema, FixedTable, Sgd
        >>> item = FixedTable(name="item", dim=8, num_rows=100, optimizer=Sgd(learning_rate=0.1))
        >>> schema = Schema(tables=(item,), features=(Feature(name="item_id", table="item", side="item"),))
        >>> [feature.column for feature in schema.features]
        ['item_id']

    Raises:
        ConfigError: a value is wrong, or two of them do not go together.
    """

    name: Name | None = Field(None, description="used in reports and in the names of run folders")
    tables: tuple[Table, ...]
    features: tuple[Feature, ...]
    labels: tuple[Label, ...] = ()
    sample_weight: str | None = Field(None, description="column with the row's weight in the loss; default 1")
    dense: tuple[DenseColumn, ...] = ()
    event_time: EventTime | None = None

    @model_validator(mode="after")
    def _check(self) -> Schema:
        for what in ("tables", "features"):
            if not getattr(self, what):
                raise ValueError(f"'{what}' is empty; at least 1 item is needed")
        _refuse_twice("tables", (t.name for t in self.tables))
        _refuse_twice("features", (f.name for f in self.features))
        _refuse_twice("labels", (lab.name or lab.column for lab in self.labels))
        _refuse_twice("dense columns", (d.column for d in self.dense))
        known = {t.name for t in self.tables}
        for feature in self.features:
            if feature.table not in known:
                raise ValueError(
                    f"feature '{feature.name}' names table '{feature.table}', which is not among: {sorted(known)}"
                )
        for table in self.tables:
            if table.name.startswith(LINEAR_PREFIX):
                raise ValueError(f"table '{table.name}': prefix '{LINEAR_PREFIX}' is reserved for first-order weights")
        apart = {t.name for t in self.tables if isinstance(t, FixedTable) and not t.shares_ids}
        for feature in self.features:
            if feature.table in apart and isinstance(feature.encoder, Identity):
                raise ValueError(
                    f"table '{feature.table}': share_ids: false does not go with the identity encoder of feature "
                    f"'{feature.name}', for which an id is a row's number; take the hash encoder, a table for each "
                    "feature, or a table without num_rows"
                )
        for name in known - {f.table for f in self.features}:
            raise ValueError(f"table '{name}' is used by no feature; remove it or name it in a feature")
        return self

    @classmethod
    def infer(
        cls,
        data: Any,
        label: str | Sequence[str] = (),
        *,
        positive_above: float | None = None,
        dim: int = 16,
        ids: Sequence[str] = (),
        numbers: Sequence[str] = (),
        ignore: Sequence[str] = (),
        most_rows: int = SAMPLE_ROWS,
    ) -> Schema:
        """The schema that rows suggest; `embtables data describe` says what it was made of.

        Text, booleans and integers become features, each with a collisionless table of its own; lists of them are
        averaged; floats, and integers that look like amounts, become dense columns; a timestamp is the event time. What
        gives the label away, is constant, or is another value in every row is left out. It is a beginning, the same for
        the same rows: print it with `to_yaml`, and say by `ids`, `numbers` and `ignore` what the data cannot.

        Args:
            data: a DataFrame, an Arrow table or dataset, or the path of a parquet log.
            label: the column to predict, 0 or 1; or several.
            positive_above: a label above it is a positive, of a column of other numbers.
            dim: values per row of every table.
            ids: columns that are features, whatever they look like.
            numbers: columns that are dense columns, whatever they look like.
            ignore: columns to leave out.
            most_rows: looked at; of a larger log, evenly spread ones.

        Raises:
            ConfigError: a column that is named is not there, or the label needs `positive_above`.
            DataError: the log cannot be read, the label cannot be one, or no column can be a feature.

        Warns:
            UserWarning: a column gives the label away and is left out; `ids` or `numbers` would keep it.

        Example:
            >>> import embtables
            >>> schema = embtables.Schema.infer("log.parquet", label="click")
            >>> [feature.name for feature in schema.features], [label.column for label in schema.labels]
            (['user', 'item'], ['click'])
        """
        named = {"label": label, "ids": ids, "numbers": numbers, "ignore": ignore}
        labels, *others = ((v,) if isinstance(v, str) else as_names(v, argument) for argument, v in named.items())
        as_integer(most_rows, "most_rows", least=1)
        if positive_above is not None:
            _need_finite(positive_above, "positive_above")
        wishes = Wishes(labels, positive_above, dim, *others)
        found = suggest(sample_of(data, labels, most_rows), wishes)
        for name, reason in found.leaks.items():
            warnings.warn(f"column '{name}' is left out: it {reason}", UserWarning, stacklevel=2)
        return validate(cls, found.content)

    def linear_tables(self) -> tuple[Table, ...]:
        """First-order weights: for every table one of dimension 1, zero at first, with the same keys and optimizer."""
        return tuple(
            t.model_copy(update={"name": LINEAR_PREFIX + t.name, "dim": 1, "initializer": Zeros()}) for t in self.tables
        )

    def linear_features(self) -> tuple[Feature, ...]:
        """The features, reading `linear_tables` instead."""
        return tuple(f.model_copy(update={"table": LINEAR_PREFIX + f.table}) for f in self.features)


def _need_finite(given: object, argument: str) -> None:
    is_number = isinstance(given, float | int) and not isinstance(given, bool)
    if not is_number or not abs(given) < float("inf"):  # type: ignore[arg-type]
        raise ConfigError(f"must be a finite number, received {shown(given)}", argument=argument)


def _refuse_twice(what: str, names: Iterable[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"{what}: name {twice[0]!r} is used twice")

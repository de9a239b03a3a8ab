"""`Given`: the columns of a request as they came: those of the context, which all its rows share, and those of its
rows.

    JSON   {"context": {...}, "candidates": [{...} | id, ...]}  or  {"rows": [{...}, ...]}
    Arrow  a table with a row for each candidate

Shape letters: K candidates or rows.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embtables.arrow.types import take_column
from embtables.errors import DataError
from embtables.inputs.values import one_array
from embtables.serving.refusals import Refusal
from embtables.serving.rows_request import RowsRequest
from embtables.serving.scoring.columns.column_rules import MAX_SHAPES, ColumnRules
from embtables.serving.scoring.columns.json_columns import Reading, json_column
from embtables.serving.wire import ScoreRequest

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Given:
    """What a request gives.

    Attributes:
        k: K.
        shared: (1,) by column, for all rows.
        own: (K,) by column.
        gaps: (K,) by column of `own`, the rows that lack it; only of columns with such rows.
        rows_name: what the request calls its rows.
        bare: the column whose values the candidates are, given as ids alone.
        ids: those ids.
        values: of `shared`, as JSON has them.
        at_us: when it came, microseconds since 1970: the event time of a request that gives none.
    """

    k: int
    shared: Mapping[str, pa.Array]
    own: Mapping[str, pa.Array]
    gaps: Mapping[str, Mask] = field(default_factory=dict)
    rows_name: str = "candidates"
    bare: str | None = None
    ids: Sequence[Any] = ()
    values: Mapping[str, Any] = field(default_factory=dict)
    at_us: int = field(default_factory=lambda: time.time_ns() // 1_000)

    def place(self, column: str, row: int | None) -> str:
        """Where a column, or its value in one row, is in the request."""
        return _Places(self.rows_name, frozenset(self.shared), self.bare)(column, row)

    def request(self) -> ScoreRequest:
        """The same as rows in JSON, as a client could send them."""
        names = [*self.shared, *self.own]
        values = [column.to_pylist() * (self.k if name in self.shared else 1) for name, column in self.columns.items()]
        rows = [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]
        for name, mask in self.gaps.items():
            for row in np.flatnonzero(mask).tolist():
                del rows[row][name]
        # Times become texts.
        return msgspec.json.decode(msgspec.json.encode(ScoreRequest(rows=rows)), type=ScoreRequest)

    @property
    def columns(self) -> Mapping[str, pa.Array]:
        """(1,) or (K,) by column, those of the context first."""
        return {**self.shared, **self.own}


class _Places:
    """See `Given.place`."""

    def __init__(self, rows_name: str, shared: frozenset[str], bare: str | None = None) -> None:
        self._rows_name, self._shared, self._bare = rows_name, shared, bare

    def __call__(self, column: str, row: int | None) -> str:
        if column in self._shared:
            return f"context.{column}"
        if row is None:
            return column
        return f"{self._rows_name}.{row}" if column == self._bare else f"{self._rows_name}.{row}.{column}"


def given_in_json(request: ScoreRequest, rules: ColumnRules) -> Given:
    """The columns of a JSON request.

    Raises:
        Refusal: 422, it has neither candidates nor rows, names an unknown column, or a column's values cannot be one.
    """
    if request.rows is not None:
        if request.candidates is not None or request.context:
            raise Refusal(422, "give context and candidates, or rows, which hold all columns; not both", "rows")
        return _of_rows(request.rows, {}, rules, "rows")
    if request.candidates is None:
        raise Refusal(422, "give candidates (with a context), or rows", "candidates")
    return _of_candidates(request.candidates, _of_context(request.context, rules), request.context, rules)


def _of_context(context: Mapping[str, Any], rules: ColumnRules) -> dict[str, pa.Array]:
    """(1,) by column."""
    places = _Places("candidates", frozenset(context))
    shared = {}
    for name, value in context.items():
        rules.check(name, f"context.{name}")
        shared[name] = json_column(name, (value,), rules.reading(name), places)
        rules.check_kind(name, shared[name], places)
    return shared


def given_in_rows(request: RowsRequest, rules: ColumnRules) -> Given:
    """The columns of a JSON request whose rows were read as columns. Raises Refusal as `given_in_json`."""
    shared = _of_context(request.context, rules)
    if request.shape not in rules.good_shapes:
        if not _are_as_in_json(request, rules):
            return given_in_json(request.whole(), rules)
        if len(rules.good_shapes) < MAX_SHAPES:
            rules.good_shapes.add(request.shape)
    own = dict(zip(request.rows.schema.names, request.rows.columns, strict=True))
    if not shared.keys().isdisjoint(own):
        return given_in_json(request.whole(), rules)
    return Given(request.rows.num_rows, shared, own, {}, request.rows_name)


def _are_as_in_json(request: RowsRequest, rules: ColumnRules) -> bool:
    """Whether a request's rows may have their columns, and `given_in_json` would make the same of them."""
    for name, column in zip(request.rows.schema.names, request.rows.columns, strict=True):
        if name not in rules.known or not _is_read_so(column.type, rules.reading(name), name in request.mixed):
            return False
        try:
            rules.check_kind(name, column, _Places(request.rows_name, frozenset()))
        except Refusal:
            return False
    return True


def _is_read_so(kind: pa.DataType, reading: Reading, is_mixed: bool) -> bool:
    """Whether `json_column` makes this type of such values: of times it may make another, or refuse them."""
    if is_mixed or pa.types.is_string(kind):
        return reading == "numbers" or (reading == "ids" and not is_mixed)
    return reading != "times" or pa.types.is_null(kind)


def _of_candidates(
    candidates: Sequence[Any], shared: dict[str, pa.Array], values: Mapping[str, Any], rules: ColumnRules
) -> Given:
    is_row = [type(candidate) is dict for candidate in candidates]
    if all(is_row):
        return _of_rows(candidates, shared, rules, "candidates")
    key, first = rules.candidate_key, is_row.index(False)
    if key is None:
        raise Refusal(
            422,
            "is no object: this version has no side table of items, so that an id alone does not say enough; "
            "give each candidate's columns",
            f"candidates.{first}",
        )
    if any(is_row):
        row = first if is_row[0] else is_row.index(True)
        raise Refusal(422, "is an object where others are ids, or an id where others are objects", f"candidates.{row}")
    if key in shared:
        raise Refusal(422, f"is what each candidate is a value of; leave '{key}' out of the context", f"context.{key}")
    places = _Places("candidates", frozenset(shared), key)
    own = {key: json_column(key, candidates, rules.reading(key), places)}
    rules.check_kind(key, own[key], places)
    return Given(len(candidates), shared, own, bare=key, ids=candidates, values=values)


def _of_rows(
    rows: Sequence[Mapping[str, Any]], shared: dict[str, pa.Array], rules: ColumnRules, rows_name: str
) -> Given:
    places = _Places(rows_name, frozenset(shared))
    names: dict[str, None] = {}
    for row in rows:
        names.update(dict.fromkeys(row))
    own, gaps = {}, {}
    for name in names:
        first = next(place for place, row in enumerate(rows) if name in row)
        rules.check(name, f"{rows_name}.{first}.{name}")
        if name in shared:
            raise Refusal(422, "is given in the context, too; give it in one of them", f"{rows_name}.{first}.{name}")
        own[name] = json_column(name, [row.get(name) for row in rows], rules.reading(name), places)
        rules.check_kind(name, own[name], places)
        lacks = [name not in row for row in rows]
        if any(lacks):
            gaps[name] = np.array(lacks)
    return Given(len(rows), shared, own, gaps, rows_name)


def given_in_table(rows: pa.Table | pa.RecordBatch, rules: ColumnRules) -> Given:
    """The columns of an Arrow table that a request may have; others are left out, as prediction leaves them.

    Raises:
        Refusal: 422, a column is there twice, or damaged.
    """
    own = {}
    for name in sorted(rules.known):
        try:
            column = take_column(rows, name)
        except DataError as error:
            raise Refusal(422, error.message, f"rows.{name}") from None
        if column is not None:
            own[name] = one_array(column)
            rules.check_kind(name, own[name], _Places("rows", frozenset()))
    return Given(rows.num_rows, {}, own, rows_name="rows")

"""`WholeColumns`: all columns that the features stage reads, at two levels: one row for the context, K for candidates.

Given --side tables, of which the keys are in the context--> columns of the context
      --side tables by the candidates' keys----------------> columns of the candidates
      --server's time, nulls for `fill_null`---------------> the rest, or a refusal that names the column
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from embtables.arrow.types import is_list
from embtables.serving.refusals import Refusal
from embtables.serving.scoring.columns.column_rules import ColumnRules
from embtables.serving.scoring.columns.given import Given
from embtables.serving.scoring.side_tables import SideTables

_NOTHING = pa.nulls(1)


@dataclass(frozen=True, slots=True)
class WholeColumns:
    """Columns of a request, none missing.

    Attributes:
        given: the request.
        shared: (1,) by column, the same for all rows.
        own: (K,) by column.
        missing: by side table the number of keys that it lacks.
    """

    given: Given
    shared: Mapping[str, pa.Array]
    own: Mapping[str, pa.Array]
    missing: Mapping[str, int]

    def repeated(self, column: str) -> pa.Array:
        """(K,) a column, of either level."""
        if column in self.own:
            return self.own[column]
        zeros = np.zeros(self.given.k, np.int32)
        return self.shared[column].take(pa.array(zeros))

    def shape(self) -> tuple[tuple[str, int, int], ...]:
        """Equal for requests whose columns can be put one after the other, as far as types tell by their number."""
        both = (*self.shared.items(), ("", _NOTHING), *self.own.items())
        return tuple((name, *_kinds(column.type)) for name, column in both)

    def table(self) -> pa.Table:
        """All K rows with all columns."""
        return pa.table({name: self.repeated(name) for name in (*self.shared, *self.own)})


def _kinds(kind: pa.DataType) -> tuple[int, int]:
    return kind.id, kind.value_type.id if is_list(kind) else -1


def whole_columns(given: Given, rules: ColumnRules, side_tables: SideTables) -> WholeColumns:
    """A request's columns with those that it does not give.

    Raises:
        Refusal: 422, nothing gives a column, or a key cannot be looked up; see `SideTables.joined`.
    """
    shared, own = dict(given.shared), dict(given.own)
    missing: dict[str, int] = {}
    if given.shared:
        # What candidates give is not looked up for the context.
        taken = {name: _NOTHING for name in given.own if name not in side_tables.keys}
        joined = side_tables.joined({**given.shared, **taken}, 1, place=given.place)
        shared |= {name: column for name, column in joined.columns.items() if name not in own}
        missing |= joined.missing
    joined = side_tables.joined({**shared, **own}, given.k, gaps=given.gaps, place=given.place)
    own |= joined.columns
    for name, count in joined.missing.items():
        missing[name] = missing.get(name, 0) + count
    for name in given.gaps:
        if name not in joined.columns:
            own[name] = _filled(given, name, rules)
    for name in rules.roots_first:
        if name not in shared and name not in own:
            shared[name] = rules.default(name, given.place, given.at_us)
    return WholeColumns(given, shared, own, missing)


def _filled(given: Given, name: str, rules: ColumnRules) -> pa.Array:
    """A column that some rows lack and no side table gives."""
    if name not in rules.needed or name in rules.may_be_null:
        return given.own[name]
    gaps = given.gaps[name]
    if name != rules.clock:
        what = f"lacks '{name}', which other rows have; no side table gives it, and it has no fill_null"
        raise Refusal(422, what, given.place(name, int(gaps.argmax())))
    now = rules.time(given.at_us)
    both = pa.concat_arrays([given.own[name].cast(now.type), now])
    return both.take(pa.array(np.where(gaps, given.k, np.arange(given.k))))

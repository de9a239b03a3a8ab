"""`KnownCandidates`: the fast way through the features stage, for candidates that are given by their ids alone.

    context columns       --the features stage-->  one row
    keys in the context   --kept rows----------->  one row of each side table
    candidates' ids       --kept rows----------->  K rows
    both                  --kept rows, crosses-->  K rows

It answers None where a request needs more than that: a column that a side table gives too, an id that none has. Shape
letters: K candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embtables.inputs.columns import Ids, column_ids, crossed, ranges
from embtables.inputs.features import FeatureTransform
from embtables.schema import Feature
from embtables.serving.scoring.columns.column_rules import ColumnRules
from embtables.serving.scoring.columns.given import Given
from embtables.serving.scoring.features.kept_rows import Int64s, KeptRows
from embtables.serving.scoring.features.levels import Level, LevelRows

_MAX_PLANS = 256


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    """Where everything comes from, for requests with the same columns in the context.

    Attributes:
        direct: made of columns of the context.
        defaults: columns of `direct` that the request does not give.
        context, pairs: side tables by keys of the context, and of the context and the candidate.
        crosses: for each of their columns the kept rows that have its ids, or None: the context.
    """

    direct: Level
    defaults: tuple[str, ...]
    context: tuple[KeptRows, ...]
    pairs: tuple[KeptRows, ...]
    crosses: tuple[tuple[Feature, tuple[KeptRows | None, ...]], ...]


@dataclass(frozen=True, slots=True)
class Found:
    """The rows of both levels, and by side table the number of keys that it lacks."""

    shared: LevelRows
    own: LevelRows
    missing: Mapping[str, int]


class KnownCandidates:
    """See above; used by any thread.

    Args:
        candidates: what is kept of them.
        tables: what is kept of the other side tables.
    """

    def __init__(
        self,
        transform: FeatureTransform,
        rules: ColumnRules,
        candidates: KeptRows,
        tables: Sequence[KeptRows],
    ) -> None:
        self._transform, self._rules = transform, rules
        self._candidates, self._tables = candidates, tuple(tables)
        self._plans: dict[frozenset[str], _Plan | None] = {}

    def find(self, given: Given) -> Found | None:
        """The features of a request; None if they are to be made in another way.

        Raises:
            DataError: a value of the context has no meaning.
        """
        candidates = self._candidates
        if not given.ids or set(map(type, given.ids)) != set(candidates.kinds):
            return None
        plan = self._plan(frozenset(given.shared))
        rows = None if plan is None else candidates.rows(given.ids)
        if plan is None or rows is None:
            return None
        columns = dict(given.shared)
        for name in plan.defaults:
            columns[name] = self._rules.default(name, given.place, given.at_us)
        direct = self._transform.convert_part(columns, 1, plan.direct.features, plan.direct.dense)
        shared, own = LevelRows.of(plan.direct, direct), candidates.take(rows)
        missing: dict[str, int] = {}
        taken: dict[KeptRows, Int64s] = {candidates: rows}
        for level, tables in ((shared, plan.context), (own, plan.pairs)):
            for kept in tables:
                places = self._places(kept, given, level.n)
                if places is None:
                    return None
                absent = 0 if kept.absent is None else int(np.count_nonzero(places == kept.absent))
                if absent:
                    missing[kept.tables[0].of.name] = absent
                taken[kept] = places
                level.add(kept.take(places))
        for feature, sources in plan.crosses:
            own.ids[feature.name] = self._crossed(feature, sources, given, taken), False
        return Found(shared, own, missing)

    def _crossed(
        self, feature: Feature, sources: Sequence[KeptRows | None], given: Given, taken: Mapping[KeptRows, Int64s]
    ) -> Ids:
        parts = []
        for name, kept in zip(feature.cross or (), sources, strict=True):
            if kept is None:
                ids = column_ids(feature, name, given.shared[name])
            else:
                ids = _taken(kept.plain[name], taken[kept])
            is_own = kept is not None and len(taken[kept]) == given.k
            parts.append(ids if is_own else _repeated(ids, given.k))
        return crossed(feature, parts, given.k)

    def _places(self, kept: KeptRows, given: Given, n: int) -> Int64s | None:
        """(n,) the rows of a side table; None if the request is to be answered in another way."""
        key = self._candidates.keys[0]
        if kept.row_of is not None and all(
            type(given.values[name]) is kind for name, kind in zip(kept.keys, kept.kinds, strict=True) if name != key
        ):
            if key not in kept.keys:
                of_context = tuple(given.values[name] for name in kept.keys)
                return kept.rows([of_context[0] if len(of_context) == 1 else of_context])
            if kept.kinds[kept.keys.index(key)] is self._candidates.kinds[0]:
                return kept.rows(_pairs(kept.keys, key, given))
        table, columns = kept.tables[0], {**given.shared, **given.own}
        places = table.positions([columns[name] for name in kept.keys], n)
        # A request that the table refuses is refused with the reason in the other way.
        return None if kept.absent is None and bool((places == table.num_rows).any()) else places

    def _plan(self, shared: frozenset[str]) -> _Plan | None:
        if shared not in self._plans:
            made = self._made(shared)
            if len(self._plans) >= _MAX_PLANS:  # which columns a request gives, its client decides
                return made
            self._plans[shared] = made
        return self._plans[shared]

    def _made(self, shared: frozenset[str]) -> _Plan | None:
        schema, rules, key = self._transform.schema, self._rules, self._candidates.keys[0]
        if not rules.joined.isdisjoint(shared):
            return None
        context = tuple(kept for kept in self._tables if shared.issuperset(kept.keys))
        with_key = shared | {key}
        pairs = tuple(kept for kept in self._tables if kept not in context and with_key.issuperset(kept.keys))
        of_tables = self._candidates.columns.union(*(kept.columns for kept in (*context, *pairs)))
        defaults = tuple(
            name
            for name in rules.needed
            if name not in shared and name not in of_tables and (name == rules.clock or name in rules.may_be_null)
        )
        kept_levels = [self._candidates.level, *(kept.level for kept in (*context, *pairs))]
        direct = Level.made_of(schema, shared | set(defaults)).without(schema, kept_levels)
        levels = [direct, *kept_levels]
        rest = [f for f in schema.features if not any(f in level.features for level in levels)]
        if len({place for level in levels for place in level.places}) < len(schema.dense):
            return None
        crosses = []
        for feature in rest:
            sources = tuple(self._source(name, shared, (*context, *pairs)) for name in feature.cross or ())
            if feature.cross is None or any(source is _NOWHERE for source in sources):
                return None
            crosses.append((feature, sources))
        return _Plan(direct, defaults, context, pairs, tuple(crosses))

    def _source(self, name: str, shared: frozenset[str], tables: Sequence[KeptRows]) -> Any:
        """The kept rows that have the ids of a column; None: the context has them."""
        if name in shared:
            return None
        return next((kept for kept in (self._candidates, *tables) if name in kept.plain), _NOWHERE)


_NOWHERE = object()


def _pairs(keys: Sequence[str], key: str, given: Given) -> list[tuple[Any, ...]]:
    """For each candidate the values of some columns, its own among them."""
    if len(keys) == 2:
        if keys[0] == key:
            other = given.values[keys[1]]
            return [(each, other) for each in given.ids]
        other = given.values[keys[0]]
        return [(other, each) for each in given.ids]
    place = keys.index(key)
    before, after = (tuple(given.values[name] for name in part) for part in (keys[:place], keys[place + 1 :]))
    return [(*before, each, *after) for each in given.ids]


def _taken(ids: Ids, rows: Int64s) -> Ids:
    if ids.lengths is None:
        return Ids(ids.values[rows])
    lengths = ids.lengths[rows]
    return Ids(ids.values[ranges((np.cumsum(ids.lengths) - ids.lengths)[rows], lengths)], lengths)


def _repeated(ids: Ids, k: int) -> Ids:
    """The ids of one row, for k rows."""
    if ids.lengths is None:
        return Ids(np.repeat(ids.values, k))
    return Ids(np.tile(ids.values, k), np.repeat(ids.lengths, k))

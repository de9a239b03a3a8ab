"""`FeaturesStage`: a request's columns -> what lookups and the dense net need of it, at two levels.

It is the features stage of training (`FeatureTransform`), run on the columns of each level apart: those of the context
once, those of the candidates for K rows. What reads columns of both (a cross of user and item) is converted for K rows.
Requests that are scored together and have the same columns are converted together, as R rows and N.
Candidates that side tables know by their ids take a faster way to the same values: `KnownCandidates`. Shape letters: K
candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

from embtables.inputs.features import FeatureTransform
from embtables.serving.scoring.columns.column_rules import ColumnRules
from embtables.serving.scoring.columns.given import Given
from embtables.serving.scoring.features.kept_rows import (
    Encoders,
    KeptRows,
    kept_candidates,
    kept_table,
    tables_of_items,
)
from embtables.serving.scoring.features.known_candidates import KnownCandidates
from embtables.serving.scoring.features.levels import Int64s, Level, LevelRows
from embtables.serving.scoring.refused import refused
from embtables.serving.scoring.side_tables import SideTables
from embtables.serving.scoring.whole_columns import WholeColumns, whole_columns
from embtables.serving.versions.side_tables.side_table import PublishedSideTable

_MAX_SHAPES = 256


@dataclass(frozen=True, slots=True)
class Converted:
    """Some requests after the features stage: R of them, with N candidates in all.

    Attributes:
        givens: the requests.
        shared: R rows, one for each.
        own: N rows, those of the first request first.
        missing: for each by side table the number of keys that it lacks.
    """

    givens: tuple[Given, ...]
    shared: LevelRows
    own: LevelRows
    missing: tuple[Mapping[str, int], ...]

    @classmethod
    def joined(cls, parts: Sequence[Converted]) -> Converted:
        """Requests whose levels are of equal kinds."""
        givens = tuple(chain.from_iterable(part.givens for part in parts))
        missing = tuple(chain.from_iterable(part.missing for part in parts))
        shared, own = LevelRows.joined([part.shared for part in parts]), LevelRows.joined([part.own for part in parts])
        return cls(givens, shared, own, missing)

    @property
    def ks(self) -> Int64s:
        """(R,) how many candidates each has."""
        return np.array([given.k for given in self.givens])


class FeaturesStage:
    """The features stage of one version's requests; used by any thread.

    Args:
        transform: of scoring.
        rules: which columns requests have.
        tables: the version's side tables.
        encoders: by feature; what is kept of side tables has keys made by them. Empty: it has ids.
        before: of the version before, from which what is the same is taken over.
    """

    def __init__(
        self,
        transform: FeatureTransform,
        rules: ColumnRules,
        tables: Sequence[PublishedSideTable],
        encoders: Encoders,
        before: FeaturesStage | None = None,
    ) -> None:
        self._transform, self._rules = transform, rules
        self._tables, self._encoders = tuple(tables), encoders
        self._side_tables = SideTables(tables)
        self._levels: dict[frozenset[str], tuple[Level, Level]] = {}
        self.candidates, self.kept = self._keep(before)
        self._known = None
        if self.candidates is not None:
            others = [kept for kept in self.kept.values() if kept is not None]
            self._known = KnownCandidates(transform, rules, self.candidates, others)

    def _keep(self, before: FeaturesStage | None) -> tuple[KeptRows | None, dict[PublishedSideTable, KeptRows | None]]:
        """What is made of side tables beforehand, or was for the version before."""
        key = self._rules.candidate_key
        if key is None:
            return None, {}
        old = before if before is not None and before.makes_same(self) else None
        of_items = [table for table in self._tables if table.of.keys == (key,)]
        others = [table for table in self._tables if table not in of_items]
        kept_before = None if old is None else old.candidates
        if kept_before is not None and kept_before.tables == tables_of_items(self._tables, kept_before.columns, key):
            candidates: KeptRows | None = kept_before
        else:
            candidates = kept_candidates(self._transform, self._rules, self._tables, self._encoders)
        kept: dict[PublishedSideTable, KeptRows | None] = {}
        for table in others:
            is_old = old is not None and table in old.kept
            kept[table] = (
                old.kept[table] if old is not None and is_old else kept_table(self._transform, table, self._encoders)
            )
        return candidates, kept

    def makes_same(self, other: FeaturesStage) -> bool:
        """Whether equal columns become equal features in both."""
        one, two = self._transform, other._transform
        same_keys = self._encoders.keys() == other._encoders.keys() and all(
            encoder.meaning() == other._encoders[name].meaning() for name, encoder in self._encoders.items()
        )
        return same_keys and one.schema == two.schema and one.fitted == two.fitted

    def convert(self, given: Given) -> Converted:
        """The features of a request.

        Raises:
            Refusal: 422, a column is missing, or a value has no meaning; names the place.
        """
        ((found, _),) = self.convert_all([given])
        if isinstance(found, BaseException):
            raise found
        return found

    def convert_all(self, givens: Sequence[Given]) -> list[tuple[Converted | BaseException, list[int]]]:
        """The features of requests: those with the same columns together, in a fraction of the calls.

        Returns:
            Converted requests, or what one ends with; and their places among `givens`.
        """
        done: list[tuple[Converted | BaseException, list[int]]] = []
        alike: dict[Any, list[tuple[int, WholeColumns]]] = {}
        known_alike: dict[Any, list[tuple[int, Converted]]] = {}
        for place, given in enumerate(givens):
            try:
                known = self._found(given)
                if known is not None:
                    kinds = known.shared.kinds(), known.own.kinds()
                    known_alike.setdefault(kinds, []).append((place, known))
                    continue
                whole = whole_columns(given, self._rules, self._side_tables)
                alike.setdefault(whole.shape(), []).append((place, whole))
            except Exception as error:
                done.append((refused(error, given), [place]))
        for of_known in known_alike.values():
            parts = [converted for _, converted in of_known]
            done.append((Converted.joined(parts), [place for place, _ in of_known]))
        for group in alike.values():
            try:
                done.append((self._together([whole for _, whole in group]), [place for place, _ in group]))
            except Exception:
                # One of them has a fault, which is its own.
                done += [self._alone(place, whole) for place, whole in group]
        return done

    def _alone(self, place: int, whole: WholeColumns) -> tuple[Converted | BaseException, list[int]]:
        try:
            return self._together([whole]), [place]
        except Exception as error:
            return refused(error, whole.given), [place]

    def _found(self, given: Given) -> Converted | None:
        found = None if self._known is None else self._known.find(given)
        return None if found is None else Converted((given,), found.shared, found.own, (found.missing,))

    def _together(self, wholes: Sequence[WholeColumns]) -> Converted:
        """The features of requests with the same columns. Raises DataError."""
        first, givens = wholes[0], tuple(whole.given for whole in wholes)
        one, each = self._levels_of(frozenset(first.own))
        shared_columns = {name: _joined([whole.shared[name] for whole in wholes]) for name in first.shared}
        repeats = pa.array(np.repeat(np.arange(len(givens)), [given.k for given in givens]))
        columns = {
            name: _joined([whole.own[name] for whole in wholes])
            if name in first.own
            else shared_columns[name].take(repeats)
            for name in each.columns
        }
        shared = self._transform.convert_part(shared_columns, len(givens), one.features, one.dense)
        own = self._transform.convert_part(columns, len(repeats), each.features, each.dense)
        missing = tuple(whole.missing for whole in wholes)
        return Converted(givens, LevelRows.of(one, shared), LevelRows.of(each, own), missing)

    def _levels_of(self, own: frozenset[str]) -> tuple[Level, Level]:
        """What requests have once, and for each candidate, whose columns are `own`."""
        found = self._levels.get(own)
        if found is None:
            schema = self._transform.schema
            features = [feature for feature in schema.features if own.isdisjoint(feature.columns)]
            places = [place for place, dense in enumerate(schema.dense) if dense.column not in own]
            one = Level.of(schema, features, places)
            every = Level.of(schema, schema.features, range(len(schema.dense)))
            found = one, every.without(schema, [one])
            if len(self._levels) < _MAX_SHAPES:  # which columns a request gives, its client decides
                self._levels[own] = found
        return found


def _joined(arrays: Sequence[pa.Array]) -> pa.Array:
    return arrays[0] if len(arrays) == 1 else pa.concat_arrays(arrays)

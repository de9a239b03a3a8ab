"""`FeaturesStage`: a request's columns -> what lookups and the dense net need of it, at two levels.

It is the features stage of training (`FeatureTransform`), run on the columns of each level apart: those of the context
once, those of the candidates for K rows. What reads columns of both (a cross of user and item) is converted for K rows.
Candidates that side tables know by their ids take a faster way to the same values: `KnownCandidates`. Shape letters: K
candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from embtables.errors import DataError
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
from embtables.serving.scoring.features.levels import Level, LevelRows
from embtables.serving.scoring.refused import refused
from embtables.serving.scoring.side_tables import SideTables
from embtables.serving.scoring.whole_columns import whole_columns
from embtables.serving.versions.side_tables.side_table import PublishedSideTable

_MAX_SHAPES = 256


@dataclass(frozen=True, slots=True)
class Converted:
    """A request after the features stage.

    Attributes:
        given: the request.
        shared: one row.
        own: K rows.
        missing: by side table the number of keys that it lacks.
    """

    given: Given
    shared: LevelRows
    own: LevelRows
    missing: Mapping[str, int]


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
        try:
            found = None if self._known is None else self._known.find(given)
            if found is not None:
                return Converted(given, found.shared, found.own, found.missing)
            whole = whole_columns(given, self._rules, self._side_tables)
            one, each = self._levels_of(frozenset(whole.own))
            shared = self._transform.convert_part(whole.shared, 1, one.features, one.dense)
            columns = {name: whole.repeated(name) for name in each.columns}
            own = self._transform.convert_part(columns, given.k, each.features, each.dense)
        except DataError as error:
            raise refused(error, given) from None
        return Converted(given, LevelRows.of(one, shared), LevelRows.of(each, own), whole.missing)

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

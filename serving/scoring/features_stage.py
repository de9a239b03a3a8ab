"""`FeaturesStage`: a request's columns -> what the dense net and the lookups need of it, at two levels.

    context columns      --joined, converted once-->  one row
    candidates' columns  --joined, converted------->  K rows
    candidates by id     --gathered---------------->  of what was converted when the version was loaded

It is the features stage of training (`FeatureTransform`), run on the columns of each level apart. What reads columns of
both (a cross of user and item) is converted for K rows. Shape letters: K candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from embtables.errors import DataError
from embtables.inputs.features import Block, FeatureTransform
from embtables.serving.scoring.column_rules import ColumnRules
from embtables.serving.scoring.given import Given
from embtables.serving.scoring.kept_candidates import kept_candidates
from embtables.serving.scoring.levels import Level, Levels
from embtables.serving.scoring.refused import refused
from embtables.serving.scoring.side_tables import SideTables
from embtables.serving.scoring.whole_columns import whole_columns
from embtables.serving.versions.side_table import PublishedSideTable

_MAX_SHAPES = 256


@dataclass(frozen=True, slots=True)
class Converted:
    """A request after the features stage.

    Attributes:
        given: the request.
        levels: what is in which block.
        shared: one row.
        kept, own: K rows each.
        missing: by side table the number of keys that it lacks.
    """

    given: Given
    levels: Levels
    shared: Block
    kept: Block
    own: Block
    missing: Mapping[str, int]


class FeaturesStage:
    """The features stage of one version's requests; used by any thread.

    Args:
        transform: of scoring.
        rules: which columns requests have.
        tables: the version's side tables.
        before: of the version before.
    """

    def __init__(
        self,
        transform: FeatureTransform,
        rules: ColumnRules,
        tables: Sequence[PublishedSideTable],
        before: FeaturesStage | None = None,
    ) -> None:
        self._transform, self._rules = transform, rules
        self._side_tables = SideTables(tables)
        self.kept = kept_candidates(transform, rules, tables, None if before is None else before.kept)
        self._levels: dict[tuple[frozenset[str], bool], Levels] = {}

    def convert(self, given: Given) -> Converted:
        """The features of a request.

        Raises:
            Refusal: 422, a column is missing, or a value has no meaning; names the place.
        """
        kept, rows = self.kept, None
        if kept is not None and given.ids and kept.columns.isdisjoint(given.shared):
            rows = kept.rows(given.ids)
        known = kept.columns if kept is not None and rows is not None else frozenset[str]()
        whole = whole_columns(given, self._rules, self._side_tables, known)
        levels = self._levels_of(frozenset(whole.own) | known, rows is not None)
        columns: dict[str, pa.Array] = {}
        for name in levels.own.columns():
            if kept is not None and name in known:
                columns[name] = kept.table[name].take(pa.array(rows))
            else:
                columns[name] = whole.repeated(name)
        shared = self._part(whole.shared, 1, levels.shared, given)
        own = self._part(columns, given.k, levels.own, given)
        block = own if kept is None or rows is None else kept.block.take(rows)
        return Converted(given, levels, shared, block, own, whole.missing)

    def _part(self, columns: Mapping[str, pa.Array], n: int, level: Level, given: Given) -> Block:
        try:
            return self._transform.convert_part(columns, n, level.features, level.dense)
        except DataError as error:
            raise refused(error, given) from None

    def _levels_of(self, own: frozenset[str], is_kept: bool) -> Levels:
        found = self._levels.get((own, is_kept))
        if found is None:
            kept = self.kept.level if is_kept and self.kept is not None else None
            found = Levels.of(self._transform.schema, own, kept)
            if len(self._levels) < _MAX_SHAPES:  # which columns a request gives, its client decides
                self._levels[own, is_kept] = found
        return found

"""`KeptCandidates`: features of the candidates that side tables know, converted once for a version.

A candidate that is given by its id alone has all its columns from side tables of items. What the features stage makes
of them is the same in every request: here it is made for all ids that the tables have, so that a request gathers it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embtables.errors import DataError
from embtables.inputs.features import Block, FeatureTransform
from embtables.inputs.values import BadRowsError
from embtables.schema import Schema
from embtables.serving.refusals import Refusal
from embtables.serving.scoring.column_rules import ColumnRules
from embtables.serving.scoring.json_columns import json_column
from embtables.serving.scoring.levels import Level
from embtables.serving.scoring.side_tables import SideTables
from embtables.serving.versions.side_table import PublishedSideTable

Int64s = npt.NDArray[np.int64]
MAX_CANDIDATES = 1_000_000
_TRIES = 8


@dataclass(frozen=True, slots=True)
class KeptCandidates:
    """What the features stage makes of each candidate by its id.

    Attributes:
        level: which features and dense columns.
        columns: of side tables, by which the candidates are known: a request that gives one is answered without these.
        row_of: by id its row of `block`.
        block: the features of `level`, a row for each id.
        table: `columns` for the same rows.
        kind: of the ids in a request: str or int.
        checksums: of the side tables that it is made of.
        transform: that made it.
    """

    level: Level
    columns: frozenset[str]
    row_of: dict[Any, int]
    block: Block
    table: dict[str, pa.Array]
    kind: type
    checksums: tuple[str, ...]
    transform: FeatureTransform

    def rows(self, ids: Sequence[Any]) -> Int64s | None:
        """(K,) the row of each id; None if one is not known."""
        if set(map(type, ids)) != {self.kind}:
            return None
        try:
            return np.array([self.row_of[each] for each in ids], np.int64)
        except KeyError:
            return None


def kept_candidates(
    transform: FeatureTransform,
    rules: ColumnRules,
    tables: Sequence[PublishedSideTable],
    before: KeptCandidates | None = None,
) -> KeptCandidates | None:
    """The candidates of a version's side tables; None if there are none, or too many.

    Args:
        rules: of the version's requests.
        tables: all side tables of the version.
        before: those of the version before, taken over if tables and transforms are the same.
    """
    key, of_items = rules.candidate_key, [table for table in tables if table.of.keys == (rules.candidate_key,)]
    if key is None or not of_items:
        return None
    checksums = tuple(table.checksum for table in tables)
    if before is not None and before.checksums == checksums and _makes_same(before.transform, transform):
        return before
    ids = _ids_of(of_items, key)
    joins = SideTables(tables)
    for _ in range(_TRIES):
        if not ids or len(ids) > MAX_CANDIDATES:
            return None
        try:
            column = json_column(key, ids, rules.reading(key), lambda column, row: column)
            columns = joins.joined({key: column}, len(ids)).columns
            if _is_chained(tables, columns):
                return None
            level = _level_of(transform.schema, {key, *columns})
            block = transform.convert_part({key: column, **columns}, len(ids), level.features, level.dense)
        except BadRowsError as error:
            # A request for one of them is answered with the reason.
            bad = set(error.rows.tolist())
            ids = [each for row, each in enumerate(ids) if row not in bad]
            continue
        except (DataError, Refusal):
            return None
        row_of = {each: row for row, each in enumerate(ids)}
        return KeptCandidates(level, frozenset(columns), row_of, block, columns, type(ids[0]), checksums, transform)
    return None


def _ids_of(tables: Sequence[PublishedSideTable], key: str) -> list[Any]:
    """The ids that the tables have, where no table refuses them; empty if they are of several types."""
    keys = [[each for each in table.table.column(key).to_pylist() if each is not None] for table in tables]
    found = list(dict.fromkeys(chain.from_iterable(keys)))
    for table, of_table in zip(tables, keys, strict=True):
        if table.of.missing == "error":
            known = set(of_table)
            found = [each for each in found if each in known]
    kinds = set(map(type, found))
    return found if kinds in ({str}, {int}) else []


def _is_chained(tables: Sequence[PublishedSideTable], columns: Mapping[str, pa.Array]) -> bool:
    """Whether a table is looked up by one of the columns, and by another that candidates do not have."""
    return any(
        not columns.keys().isdisjoint(table.of.keys) and not columns.keys() >= set(table.of.columns) for table in tables
    )


def _level_of(schema: Schema, columns: Set[str]) -> Level:
    """What can be made of these columns alone."""
    features = [feature for feature in schema.features if columns >= set(feature.columns)]
    return Level.of(schema, features, [n for n, dense in enumerate(schema.dense) if dense.column in columns])


def _makes_same(one: FeatureTransform, other: FeatureTransform) -> bool:
    return one.schema == other.schema and one.fitted == other.fitted

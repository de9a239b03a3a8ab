"""`KeptRows`: what the features stage makes of each row of a side table, made once when a version is loaded.

What a key gives is the same in every request, so that a request gathers it. A row after the last one is what a key
gives that the table lacks. Shape letters: n rows, k keys of a request.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embtables.errors import DataError
from embtables.ids import Encoder
from embtables.inputs.columns import Ids, column_ids
from embtables.inputs.features import Block, FeatureTransform, take_ids
from embtables.inputs.values import BadRowsError
from embtables.serving.refusals import Refusal
from embtables.serving.scoring.columns.column_rules import ColumnRules
from embtables.serving.scoring.columns.json_columns import json_column
from embtables.serving.scoring.features.levels import Level, LevelRows
from embtables.serving.scoring.side_tables import SideTables
from embtables.serving.versions.side_tables.side_table import PublishedSideTable

Int64s = npt.NDArray[np.int64]
Encoders = Mapping[str, Encoder[Any]]
MAX_INDEXED = 1_000_000
_TRIES = 8


@dataclass(frozen=True, slots=True, eq=False)
class KeptRows:
    """Converted rows, and which row is a key's.

    Attributes:
        keys: columns of a request, one or more.
        columns: of side tables that the rows are made of; a request that gives one is answered without these.
        level: features and dense columns that are made of `columns`, and of the key where it is a candidate's.
        row_of: by key (a tuple of several) its row; None: the tables' own index says it.
        kinds: types of the key's values in a request that `row_of` knows.
        absent: the row of a key that is not there; None: such a request is answered in another way.
        block: of `level`, a row for each key and for none.
        encoders: by feature: those whose `block` has keys in place of ids.
        plain: ids of columns that crosses read.
        tables: that they are made of.
    """

    keys: tuple[str, ...]
    columns: frozenset[str]
    level: Level
    row_of: dict[Any, int] | None
    kinds: tuple[type, ...]
    absent: int | None
    block: Block
    encoded: frozenset[str]
    plain: dict[str, Ids]
    tables: tuple[PublishedSideTable, ...]

    def rows(self, keys: Sequence[Any]) -> Int64s | None:
        """(k,) the rows of keys: of single values, or of tuples. None if there is one that cannot be said of."""
        assert self.row_of is not None
        if self.absent is None:
            try:
                return np.array([self.row_of[key] for key in keys], np.int64)
            except KeyError:
                return None
        get, absent = self.row_of.get, self.absent
        return np.array([get(key, absent) for key in keys], np.int64)

    def take(self, rows: Int64s) -> LevelRows:
        """What is kept of some rows."""
        ids = {}
        for feature, of, starts in zip(self.level.features, self.block.ids, self.block.starts, strict=True):
            ids[feature.name] = take_ids(of, starts, rows), feature.name in self.encoded
        dense = [(self.level.places, self.block.dense[rows])] if self.level.places else []
        return LevelRows(len(rows), ids, dense)


def kept_candidates(
    transform: FeatureTransform, rules: ColumnRules, tables: Sequence[PublishedSideTable], encoders: Encoders
) -> KeptRows | None:
    """What is known of candidates by their ids alone; None: nothing, or of too many."""
    key, of_items = rules.candidate_key, [table for table in tables if table.of.keys == (rules.candidate_key,)]
    if key is None or not of_items:
        return None
    if any(table.table.num_rows > MAX_INDEXED for table in of_items):
        return None
    ids = _ids_of(of_items, key)
    joins = SideTables(tables)
    for _ in range(_TRIES):
        if not ids or len(ids) > MAX_INDEXED:
            return None
        try:
            column = json_column(key, ids, rules.reading(key), lambda column, row: column)
            columns = joins.joined({key: column}, len(ids)).columns
            if _is_chained(tables, columns):
                return None
            level = Level.made_of(transform.schema, {key, *columns})
            with_key = {key: column, **columns}
            block = transform.convert_part(with_key, len(ids), level.features, level.dense)
        except BadRowsError as error:
            # A request for one of them is answered with the reason.
            bad = set(error.rows.tolist())
            ids = [each for row, each in enumerate(ids) if row not in bad]
            continue
        except (DataError, Refusal):
            return None
        row_of = {each: row for row, each in enumerate(ids)}
        encoded, block = _encoded(level, block, encoders)
        plain = _plain(transform, with_key)
        kinds = (type(ids[0]),)
        joined = tables_of_items(tables, columns, key)
        return KeptRows((key,), frozenset(columns), level, row_of, kinds, None, block, encoded, plain, joined)
    return None


def tables_of_items(
    tables: Sequence[PublishedSideTable], columns: Collection[str], key: str
) -> tuple[PublishedSideTable, ...]:
    """The side tables that are joined to an item's id, also by way of columns that others of them give."""
    return tuple(table for table in tables if {key, *columns}.issuperset(table.of.keys))


def kept_table(transform: FeatureTransform, table: PublishedSideTable, encoders: Encoders) -> KeptRows | None:
    """What is made of a side table's rows; None where it cannot be made beforehand."""
    level = Level.made_of(transform.schema, table.of.columns)
    columns = table.take(np.arange(table.num_rows + 1))
    absent: int | None = table.num_rows if table.of.missing != "error" else None
    try:
        block = transform.convert_part(columns, table.num_rows + 1, level.features, level.dense)
    except BadRowsError as error:
        if error.rows.tolist() != [table.num_rows]:
            return None
        columns = {name: column.slice(0, table.num_rows) for name, column in columns.items()}
        absent = None
        try:
            block = transform.convert_part(columns, table.num_rows, level.features, level.dense)
        except DataError:
            return None
    except DataError:
        return None
    encoded, block = _encoded(level, block, encoders)
    row_of, kinds = _index_of(table)
    plain = _plain(transform, columns)
    return KeptRows(
        table.of.keys, frozenset(table.of.columns), level, row_of, kinds, absent, block, encoded, plain, (table,)
    )


def _index_of(table: PublishedSideTable) -> tuple[dict[Any, int] | None, tuple[type, ...]]:
    """By key its row, as JSON has keys: strings and integers; None of other types, or of very many rows."""
    if not 0 < table.num_rows <= MAX_INDEXED:
        return None, ()
    columns = [table.table.column(name) for name in table.of.keys]
    if not all(_is_as_in_json(column.type) for column in columns):
        return None, ()
    values = [column.to_pylist() for column in columns]
    kinds = [set(map(type, each)) for each in values]
    if any(kind not in ({str}, {int}) for kind in kinds):
        return None, ()
    keys = values[0] if len(values) == 1 else list(zip(*values, strict=True))
    return {key: row for row, key in enumerate(keys)}, tuple(kind.pop() for kind in kinds)


def _is_as_in_json(kind: pa.DataType) -> bool:
    """Whether JSON has values of a type as they are: texts, and integers that are equal ids with either sign."""
    values = kind.value_type if pa.types.is_dictionary(kind) else kind
    is_text = pa.types.is_string(values) or pa.types.is_large_string(values)
    return bool(is_text or (pa.types.is_integer(values) and not pa.types.is_uint64(values)))


def _encoded(level: Level, block: Block, encoders: Encoders) -> tuple[frozenset[str], Block]:
    """The block with keys in place of the ids of features of which each id has one."""
    found, names = [], set()
    for feature, ids in zip(level.features, block.ids, strict=True):
        encoder = encoders.get(feature.name)
        if encoder is None or encoder.num_keys != 1:
            found.append(ids)
            continue
        try:
            found.append(Ids(encoder.encode(ids.values), ids.lengths, ids.weights))
            names.add(feature.name)
        except DataError:  # it refuses an id: a request that has it is refused
            found.append(ids)
    return frozenset(names), Block.of(found, block.dense)


def _plain(transform: FeatureTransform, columns: Mapping[str, pa.Array]) -> dict[str, Ids]:
    """The ids of columns that crosses read."""
    found = {}
    for feature in transform.schema.features:
        for name in feature.cross or ():
            if name in columns and name not in found:
                found[name] = column_ids(feature, name, columns[name])
    return found


def _ids_of(tables: Sequence[PublishedSideTable], key: str) -> list[Any]:
    """The ids that the tables have, where no table refuses them; empty if they are of several types, or times."""
    if not all(_is_as_in_json(table.table.column(key).type) for table in tables):
        return []
    keys = [[each for each in table.table.column(key).to_pylist() if each is not None] for table in tables]
    found = list(dict.fromkeys(chain.from_iterable(keys)))
    for table, of_table in zip(tables, keys, strict=True):
        if table.of.missing == "error":
            known = set(of_table)
            found = [each for each in found if each in known]
    return found if set(map(type, found)) in ({str}, {int}) else []


def _is_chained(tables: Sequence[PublishedSideTable], columns: Mapping[str, pa.Array]) -> bool:
    """Whether a table is looked up by one of the columns, and by another that candidates do not have."""
    return any(
        not columns.keys().isdisjoint(table.of.keys) and not columns.keys() >= set(table.of.columns) for table in tables
    )

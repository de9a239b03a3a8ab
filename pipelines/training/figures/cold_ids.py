"""`ColdIds`: whether the ids of a log are those that were trained, by their share, as an evaluation or prediction goes.

Ids that are written in another way (as text instead of numbers, padded, with a prefix, hashed differently) are none of
those that a table knows, and nothing fails: all of them read the cold row. Only a table that grows can tell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from embtables.arrow.types import is_list, is_text
from embtables.inputs.batch import Batch
from embtables.inputs.values import one_array
from embtables.pipelines.config import RunConfig
from embtables.pipelines.sources.log import Log
from embtables.pipelines.sources.rows.split import LogPart
from embtables.schema import CollisionlessTable, Feature, HashSplit
from embtables.schema.schema import LINEAR_PREFIX
from embtables.tables.table_set import Tables

# Of each batch so many ids of a feature are looked up, evenly spread; fewer when many have been.
_IDS, _FEW_IDS, _MANY_BATCHES = 1_024, 64, 16
_LEAST_IDS, _LEAST_ROWS = 1_000, 100
_SHARE = 0.99
_MOST_ROWS_TO_LIST = 5_000_000


@dataclass(slots=True)
class _Count:
    """Ids of one feature that were looked up, and those of them without a row."""

    table: str
    looked_up: int = 0
    cold: int = 0


class ColdIds:
    """Counts ids without a row in tables that have rows, by feature.

    Crosses are left out, whose pairs are new as a rule, and so is the one column that the log's own parts are divided
    by. With several ranks nothing is counted: a look-up is a message.

    Args:
        log: the rows that are looked at; an example of them is read for a warning.
        part: of the run's own log; None: of all rows, or of another log.
    """

    def __init__(self, config: RunConfig, tables: Tables, log: Log, part: LogPart | None) -> None:
        self._tables, self._log, self._part = tables, log, part
        self._batches = 0
        self._counts: dict[str, _Count] = {}
        split = config.data.split
        divided = set(split.columns) if part is not None and isinstance(split, HashSplit) else set()
        self._features = {feature.name: feature for feature in config.features}
        for feature in config.features if tables.world.size == 1 else ():
            table = _table_of(tables, feature)
            if table is not None and not feature.cross and set(feature.columns) != divided:
                self._counts[feature.name] = _Count(table)

    def observe(self, batch: Batch) -> None:
        """Looks at some ids of a batch."""
        most = _IDS if self._batches < _MANY_BATCHES else _FEW_IDS
        self._batches += 1
        for name, count in self._counts.items():
            ids = batch.ids[name].values
            ids = ids[:: max(1, -(-len(ids) // most))]
            if len(ids):
                known = self._tables.known(count.table, ids, feature=name)
                count.looked_up += len(ids)
                count.cold += len(ids) - int(known.sum())

    def warnings(self) -> list[str]:
        """A sentence for each feature of which nearly no id is known."""
        return [self._sentence(self._features[name], count) for name, count in self._counts.items() if _is_odd(count)]

    def _sentence(self, feature: Feature, count: _Count) -> str:
        column = " and ".join(feature.columns)
        examples = self._examples(feature, count.table)
        return (
            f"feature {feature.name}: {int(100 * count.cold / count.looked_up)} % of its ids have no row in table "
            f"{feature.table}, although training has made rows: they all read the cold row{examples}. Look at whether "
            f"column {column} is written as it was in training: type, padding, prefix, hashing"
        )

    def _examples(self, feature: Feature, table: str) -> str:
        """An id of the log, and one of the table if its keys can be named."""
        if len(feature.columns) != 1:
            return ""
        here = _first_value(self._log, self._part, feature.columns[0])
        if here is None:
            return ""
        of_table = None if isinstance(here, str | bytes) else self._an_id(feature, table)
        return (
            f" (an id of these rows: {here!r:.60}" + ("" if of_table is None else f"; of the table: {of_table}") + ")"
        )

    def _an_id(self, feature: Feature, table: str) -> int | None:
        read = next(r for r in self._tables.features if r.feature.name == feature.name and r.table.name == table)
        if self._tables.stats()[table].rows > _MOST_ROWS_TO_LIST or read.keys_per_id != 1:
            return None
        keys = self._tables.keys(table)
        ids = None if keys is None else read.encoder.decode(keys[len(keys) // 2 :][:1].numpy())
        return None if ids is None or not len(ids) else int(ids[0])


def _table_of(tables: Tables, feature: Feature) -> str | None:
    """The table that tells known ids of a feature from others; None if there is none, or it has few rows."""
    for config in tables.configs:
        if config.name in (feature.table, LINEAR_PREFIX + feature.table) and isinstance(config, CollisionlessTable):
            return config.name if tables.num_rows(config.name) >= _LEAST_ROWS else None
    return None


def _is_odd(count: _Count) -> bool:
    return count.looked_up >= _LEAST_IDS and count.cold >= _SHARE * count.looked_up


def _first_value(log: Log, part: LogPart | None, column: str) -> Any:
    """The first value of a column, of a list its first item; None if the first rows have none."""
    for block in log.blocks(0, None, part):
        table = log.rows(block, part, [column]).table
        if not table.num_rows:
            continue
        values = one_array(table.column(column)).drop_null()
        while is_list(values.type):
            values = pc.list_flatten(values).drop_null()
        if not len(values):
            return None
        value = values[0]
        text = is_text(values.type) or pa.types.is_integer(values.type)
        return value.as_py() if text else str(value.as_py())
    return None
